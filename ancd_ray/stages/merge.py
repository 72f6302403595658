"""Merge: merges classes of regions to classes of images (Section III-D), from stored probabilities alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ancd_ray.config.sections import MergeConfig
from ancd_ray.data.tables import column_to_matrix
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage
from ancd_ray.method.merging import find_main_regions, merge_images

if TYPE_CHECKING:
    import pyarrow as pa

_REGION_COLUMNS = ["image_id", "probs", "area", "score", "novelty", "is_unknown"]


@dataclass(frozen=True)
class Merge(Stage):
    """Merges classes of regions to classes of images."""

    name: ClassVar[str] = "merge"
    version: ClassVar[int] = 5

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table
        region_predictions: Table

    class Out:
        """Artifacts that the stage makes, by role."""

        image_predictions: Table

    merge: MergeConfig
    has_normal: bool

    def run(self, context: Context, inputs: In) -> Work:
        """Compute the table `image_predictions`."""
        sources = {"images": inputs.images, "region_predictions": inputs.region_predictions}
        done = yield from context.map(MergeRegions(self.merge, self.has_normal), align_shards(sources))
        return Result.of_shards(done)


@dataclass(frozen=True)
class MergeRegions:
    """Merges the regions of the images of a shard."""

    config: MergeConfig
    has_normal: bool

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `image_predictions`."""
        regions = shard.table("region_predictions", _REGION_COLUMNS)
        return ShardResult({"image_predictions": self.merge(shard.rows_of("images"), regions)})

    def merge(self, image_rows: Iterable[Mapping[str, Any]], regions: pa.Table) -> list[dict[str, Any]]:
        """Compute the rows of `image_predictions`; an image without regions was quarantined earlier."""
        if not regions.num_rows:
            return []
        images = {row["image_id"]: row for row in image_rows}
        ids, image_of_region = np.unique(np.asarray(regions.column("image_id")), return_inverse=True)
        probs = column_to_matrix(regions.column("probs"))
        areas, region_scores = regions.column("area").to_numpy(), regions.column("score").to_numpy()
        rule, tau_alpha = self.config.rule, self.config.tau_alpha
        merged = merge_images(image_of_region, probs, areas, tau_alpha, rule, region_scores)
        main = find_main_regions(image_of_region, areas, tau_alpha, rule, region_scores)
        novelty, is_unknown = (regions.column(name).to_numpy()[main] for name in ("novelty", "is_unknown"))
        scores = np.full(len(ids), -np.inf)
        np.maximum.at(scores, image_of_region, region_scores)
        counts = np.bincount(image_of_region)
        return [
            {
                **self._make_row(images[image_id], merged[i], int(counts[i]), float(scores[i])),
                "novelty": float(novelty[i]),
                "is_unknown": bool(is_unknown[i]),
            }
            for i, image_id in enumerate(ids)
        ]

    def _make_row(self, image: Mapping[str, Any], probs: Any, n_regions: int, score: float) -> dict[str, Any]:
        cls = int(probs.argmax())
        return {
            **{key: image[key] for key in ("image_id", "product", "uri", "label")},
            "probs": probs.tolist(),
            "cls": cls,
            "confidence": float(probs[cls]),
            "is_normal": self.has_normal and cls == 0,
            "n_regions": n_regions,
            "score": score,
            "brightness": image.get("brightness"),  # of rows that carry it
        }
