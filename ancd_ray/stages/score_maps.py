"""Score maps: pixel AUROC, AUPRO (at 30 % false positives) and PRO curve of anomaly maps, by mergeable histograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import pyarrow.compute as pc

from ancd_ray.data.images import BadImage
from ancd_ray.data.roi import Roi
from ancd_ray.data.roles import GOOD
from ancd_ray.data.sources import has_mask
from ancd_ray.data.tables import decode_anomaly_map
from ancd_ray.detectors.ground_truth import MaskReader
from ancd_ray.engine.artifacts import Figures, Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage


@dataclass(frozen=True)
class ScoreMaps(Stage):
    """Evaluates the anomaly maps."""

    name: ClassVar[str] = "score_maps"
    version: ClassVar[int] = 5
    resources: ClassVar[Resources] = "images"

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table
        maps: Table
        roi: Files | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        map_scores: Figures

    def run(self, context: Context, inputs: In) -> Work:
        """Compute `pixel_auroc`, `aupro` and `pro_curve`; None if no image has a mask or the label `good`."""
        from ancd_ray.method.metrics import MapCurve

        highest = pc.min_max(inputs.maps.read(["score"]).column("score")).as_py()["max"]
        high = max(float(highest or 0.0), 1e-12)
        shards = align_shards({"images": inputs.images, "maps": inputs.maps}, count="maps")
        done = yield from context.map(CompareMasks(high, Roi.load(inputs.roi.read) if inputs.roi else None), shards)
        result = Result.of_shards(done)
        total, compared = MapCurve(0.0, high), 0
        for part in result.tables.get("map_curves", ()):  # one after another: there may be thousands
            for row in part.read(context.folder).to_pylist():
                compared += row.pop("compared")
                total.merge(MapCurve.from_dict(row))
        curve = total.pro_curve()
        figures = {
            "pixel_auroc": total.pixel_auroc(),
            "aupro": total.aupro(),
            "pro_curve": [np.round(axis, 4).tolist() for axis in curve] if curve else None,
        }
        return Result(result.tables, {**figures, "compared": compared})


@dataclass(frozen=True)
class CompareMasks:
    """Computes the histograms of a shard of maps; `high` is their upper end, the highest score of the product.

    Pixels outside the region of interest do not count, normal or not.
    """

    high: float
    roi: Roi | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the row of `map_curves`, if there is any; unreadable masks are skipped."""
        from ancd_ray.method.metrics import MapCurve

        images = {row["image_id"]: row for row in shard.rows_of("images")}
        curve, compared = MapCurve(0.0, self.high), 0
        for row in shard.rows_of("maps"):
            image = images[row["image_id"]]
            if not has_mask(image) and image["label"] != GOOD:
                continue  # its anomalous pixels are not known
            values = decode_anomaly_map(row)
            mask = MaskReader().score([image])[0]
            if isinstance(mask, BadImage):
                continue
            small = cv2.resize(mask, values.shape[::-1], interpolation=cv2.INTER_AREA)
            inside = self.roi.draw((image["height"], image["width"]), values.shape) if self.roi else None
            curve.add(values, np.where(small > 127, 255, 0).astype(np.uint8), inside)
            compared += 1
        return ShardResult({"map_curves": [{**curve.to_dict(), "compared": compared}] if compared else []})
