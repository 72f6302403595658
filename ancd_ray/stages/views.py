"""Views: fills the view bank with augmented views of every region, encoded by the frozen trunk (Section III-C1).

Only tokens that are visible to the class token are stored. Training does not read images then, and all trainings on the
same regions, such as the trials of a sweep, share the bank.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import decode_mask, decode_rgb
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, is_sampled
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 32  # views per batch of the trunk, and of the file


@dataclass(frozen=True)
class FillViewBank(Stage):
    """Encodes `n_views` augmented views of every region, or of those of a sample of the images beyond `max_regions`."""

    name: ClassVar[str] = "views"
    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = "model"

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        regions: Table

    class Out:
        """Artifacts that the stage makes, by role."""

        views: Table

    backbone: BackboneConfig
    n_views: int
    max_regions: int

    @property
    def passes(self) -> int:
        """Views of a region."""
        return self.n_views

    def run(self, context: Context, inputs: In) -> Work:
        """Encode the views to Arrow files, which can be memory-mapped."""
        share = self.max_regions / max(inputs.regions.num_rows, 1)
        worker = EncodeViews(self.backbone, self.n_views, share)
        done = yield from context.map(worker, align_shards({"regions": inputs.regions}))
        return Result.of_shards(done)


@dataclass(frozen=True)
class EncodeViews:
    """Encodes views of the regions of a shard; the seed is the region's id."""

    backbone: BackboneConfig
    n_views: int
    share: float = 1  # of the images whose regions are encoded

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `views`, a batch at a time: all views of a shard may be gigabytes."""
        return ShardResult({"views": self._encode(shard.table("regions"))})

    def _encode(self, regions: pa.Table) -> Iterator[list[dict[str, Any]]]:
        from ancd_ray.backbones.base import inputs, view_rows
        from ancd_ray.backbones.loaded import load_cached

        model = load_cached(self.backbone)
        drawn = self._draw(regions, model.view_size)
        while batch := list(islice(drawn, _BATCH)):
            encoded = model.encode(*inputs(model, [(image, mask) for _, _, image, mask in batch]))
            yield view_rows(encoded, [(region, view) for region, view, _, _ in batch])

    def _draw(self, regions: pa.Table, size: int) -> Iterator[tuple[Mapping[str, Any], int, Any, Any]]:
        from ancd_ray.method.views import random_view

        for start in range(0, regions.num_rows, _BATCH):
            for region in regions.slice(start, _BATCH).to_pylist():
                if not is_sampled(region["image_id"], self.share):
                    continue
                image, mask = decode_rgb(region["image"]), decode_mask(region["mask"])
                for view in range(self.n_views):
                    rng = np.random.default_rng([zlib.crc32(region["region_id"].encode()), view])
                    yield (region, view, *random_view(image, mask, rng, size))
