"""Fills the view bank: augmented views of every region, once through the frozen trunk (Section III-C1).

Only the tokens that the mask lets the class token see are kept. Training then touches no image any more, and all
trainings on the same regions, a sweep's trials for one, share the bank.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ancd_ray.backbones.base import Backbone, inputs
from ancd_ray.backbones.loaded import backbone
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import decode_mask, decode_rgb
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load
from ancd_ray.method.views import clean_view, random_view

_BATCH = 32  # views at once through the trunk


def run(context: Context, trunk: BackboneConfig, n_views: int, clean: bool = False) -> Result:
    """The table `views`, as Arrow files that map into memory; `clean`: the view that is classified, as it is."""
    worker = EncodeViews(trunk, n_views, clean)
    return Result.of_shards(context.map(worker, aligned({"regions": context.inputs["regions"]})))


@dataclass(frozen=True)
class EncodeViews:
    """`n_views` views of every region of a shard, drawn by the region's id."""

    trunk: BackboneConfig
    n_views: int
    clean: bool = False
    load: ClassVar[Load] = "model"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `views`."""
        model = backbone(self.trunk)
        drawn = self._draw(shard.rows_of("regions"), model.view_size)
        rows: list[dict[str, Any]] = []
        while batch := [view for _, view in zip(range(_BATCH), drawn, strict=False)]:
            rows += _encode(model, batch)
        return Work({"views": rows})

    def _draw(
        self, regions: Sequence[Mapping[str, Any]], size: int
    ) -> Iterator[tuple[Mapping[str, Any], int, Any, Any]]:
        for region in regions:
            image, mask = decode_rgb(region["image"]), decode_mask(region["mask"])
            if self.clean:
                yield (region, 0, *clean_view(image, mask, size))
                continue
            for view in range(self.n_views):
                rng = np.random.default_rng([zlib.crc32(region["region_id"].encode()), view])
                yield (region, view, *random_view(image, mask, rng, size))


def _encode(model: Backbone, batch: Sequence[tuple[Mapping[str, Any], int, Any, Any]]) -> Iterator[dict[str, Any]]:
    encoded = model.encode(*inputs(model, [(image, mask) for _, _, image, mask in batch]))
    cls = encoded.cls_BD.half().cpu().numpy()
    tokens = encoded.tokens_BND.half().cpu().numpy()
    visible = encoded.visible_BN.cpu().numpy()
    for i, (region, view, _, _) in enumerate(batch):
        yield {
            **{key: region[key] for key in ("region_id", "product", "role", "label", "score")},
            "view": view,
            "cls": cls[i].tobytes(),
            "tokens": tokens[i][visible[i]].tobytes(),
        }
