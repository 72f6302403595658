"""Merge: from regions to images (Section III-D). It reads stored probabilities alone, so another τ_α costs one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ancd_ray.config.sections import MergeConfig
from ancd_ray.data.tables import matrix
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load
from ancd_ray.method.merging import merge_images

_REGION_COLUMNS = ["image_id", "probs", "area", "score"]


def run(context: Context, config: MergeConfig) -> Result:
    """The table `image_predictions`."""
    tables = {"images": context.inputs["catalog"], "region_predictions": context.inputs["classify"]}
    worker = MergeRegions(config, bool(context.inputs["train"].values["has_normal"]))
    return Result.of_shards(context.map(worker, aligned(tables)))


@dataclass(frozen=True)
class MergeRegions:
    """The images of a shard from their regions."""

    config: MergeConfig
    has_normal: bool
    load: ClassVar[Load] = "light"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `image_predictions`, in the order of the images; one without regions was set aside earlier."""
        regions = shard.table("region_predictions", _REGION_COLUMNS)
        if not regions.num_rows:
            return Work({"image_predictions": []})
        images = {row["image_id"]: row for row in shard.rows_of("images")}
        ids, image_of_region = np.unique(np.asarray(regions.column("image_id")), return_inverse=True)
        probs = matrix(regions.column("probs"))
        areas, region_scores = regions.column("area").to_numpy(), regions.column("score").to_numpy()
        rule, tau_alpha = self.config.rule, self.config.tau_alpha
        merged = merge_images(image_of_region, probs, areas, tau_alpha, rule, region_scores)
        scores = np.full(len(ids), -np.inf)
        np.maximum.at(scores, image_of_region, region_scores)
        counts = np.bincount(image_of_region)
        rows = [
            self._row(images[image_id], merged[i], int(counts[i]), float(scores[i])) for i, image_id in enumerate(ids)
        ]
        return Work({"image_predictions": rows})

    def _row(self, image: Mapping[str, Any], probs: Any, n_regions: int, score: float) -> dict[str, Any]:
        cls = int(probs.argmax())
        return {
            **{key: image[key] for key in ("image_id", "product", "uri", "label")},
            "probs": probs.tolist(),
            "cls": cls,
            "confidence": float(probs[cls]),
            "is_normal": self.has_normal and cls == 0,
            "n_regions": n_regions,
            "score": score,
        }
