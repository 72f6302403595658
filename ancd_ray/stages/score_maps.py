"""Scores the anomaly maps against masks: pixel AUROC and AUPRO at 30 % false positives, by mergeable histograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow.compute as pc

from ancd_ray.data.images import BadImage
from ancd_ray.data.roles import GOOD
from ancd_ray.data.tables import map_of
from ancd_ray.detectors.ground_truth import MaskReader
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load
from ancd_ray.method.metrics import MapCurve


def run(context: Context) -> Result:
    """Values `pixel_auroc` and `aupro`; None where no image has a mask or a label says that it is good."""
    maps = context.inputs["detect"]
    found = pc.min_max(maps.table("maps", ["score"]).column("score")).as_py()
    high = float(found["max"] or 0.0)
    done = context.map(CompareMasks(high), aligned({"images": context.inputs["catalog"], "maps": maps}, count="maps"))
    curves = [MapCurve.from_dict(shard.values["curve"]) for shard in done if shard.values["compared"]]
    compared = sum(shard.values["compared"] for shard in done)
    values: dict[str, Any] = {"pixel_auroc": None, "aupro": None, "compared": compared}
    if curves:
        total = curves[0]
        for curve in curves[1:]:
            total.merge(curve)
        values |= {"pixel_auroc": total.pixel_auroc(), "aupro": total.aupro()}
    return Result.of_shards(done, values)


@dataclass(frozen=True)
class CompareMasks:
    """Histograms of a shard of maps; `high` is the largest score of the product."""

    high: float
    load: ClassVar[Load] = "images"

    def __call__(self, shard: Shard) -> Work:
        """No rows: the histograms are figures of the shard. A mask that cannot be read was told of by another step."""
        images = {row["image_id"]: row for row in shard.rows_of("images")}
        curve, compared = MapCurve(0.0, max(self.high, 1e-12)), 0
        for row in shard.rows_of("maps"):
            image = images[row["image_id"]]
            if image["mask_uri"] is None and image["label"] != GOOD:
                continue  # what is anomalous in it is not known
            values = map_of(row)
            mask = MaskReader().score([image])[0]
            if isinstance(mask, BadImage):
                continue
            small = cv2.resize(mask, values.shape[::-1], interpolation=cv2.INTER_AREA)
            curve.add(values, np.where(small > 127, 255, 0).astype(np.uint8))
            compared += 1
        return Work({}, {"curve": curve.to_dict() if compared else None, "compared": compared})
