"""Describe: frozen features of every region, once: what clusterings and the number of classes work on.

Shape suffixes: B regions, N patches, D token width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.backbones.loaded import backbone
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import decode_mask, decode_rgb
from ancd_ray.discovery.features.shape import shape_cues
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load
from ancd_ray.method.views import ColorNormalization, clean_view, normalize_color, tensors

_BATCH = 32
_TOP = 0.1  # share of the patches that `top` averages (UniFormaly takes a few per cent of a whole image)


def run(context: Context, trunk: BackboneConfig) -> Result:
    """The table `descriptors`; the value `widths` tells the scales of a token."""
    shards = context.map(Describe(trunk), aligned({"regions": context.inputs["regions"]}))
    return Result.of_shards(
        shards, {"widths": list(backbone(trunk).widths), "backbone_digest": backbone(trunk).digest()}
    )


@dataclass(frozen=True)
class Describe:
    """The trunk over a shard of regions."""

    trunk: BackboneConfig
    load: ClassVar[Load] = "model"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `descriptors`."""
        model = backbone(self.trunk)
        regions = shard.rows_of("regions")
        rows: list[dict[str, Any]] = []
        for start in range(0, len(regions), _BATCH):
            rows += _described(regions[start : start + _BATCH], model)
        return Work({"descriptors": rows})


@torch.no_grad()
def _described(regions: Sequence[Mapping[str, Any]], model: Backbone) -> Iterator[dict[str, Any]]:
    masks = [decode_mask(region["mask"]) for region in regions]
    pairs = [
        clean_view(decode_rgb(region["image"]), mask, model.view_size)
        for region, mask in zip(regions, masks, strict=True)
    ]
    images_BCHW, masks_BHW = tensors(pairs, model.mean, model.std)
    masks_BHW[masks_BHW.amax(dim=(1, 2)) == 0] = 1.0  # nothing stands out: the whole of it is the region
    all_BHW = torch.ones_like(masks_BHW)  # behind a mask a trunk may leave out the tokens that it hides

    def look(mode: ColorNormalization) -> dict[str, Tensor]:
        encoded = model.encode(normalize_color(images_BCHW, mode), all_BHW)
        tokens_BND = encoded.tokens_BND[..., : sum(model.widths)].float()
        return statistics(tokens_BND, masks_BHW.to(tokens_BND.device))

    found = look(model.color_normalization)
    found["centred"] = found["masked"] if model.color_normalization == "centred" else look("centred")["masked"]
    features = {name: values.cpu().numpy() for name, values in found.items()}
    for i, region in enumerate(regions):
        yield {
            **{key: region[key] for key in ("region_id", "image_id", "product", "role", "label", "area", "score")},
            **{name: values[i].tolist() for name, values in features.items()},
            "shape": shape_cues(masks[i], region["x1"] - region["x0"]).tolist(),
        }


def statistics(tokens_BND: Tensor, masks_BHW: Tensor) -> dict[str, Tensor]:
    """`masked` and `top` (B, D) of patch tokens; the patches form a square, what follows them (registers) is left
    out. The masks are not empty."""
    side = math.isqrt(tokens_BND.shape[1])
    tokens_BND = tokens_BND[:, : side**2]
    share_BN = F.adaptive_avg_pool2d(masks_BHW[:, None], (side, side)).flatten(1)
    weight_BN = share_BN / share_BN.sum(dim=1, keepdim=True)
    top_BK = share_BN.topk(max(1, round(_TOP * side**2)), dim=1).indices
    top_BKD = tokens_BND.gather(1, top_BK[..., None].expand(-1, -1, tokens_BND.shape[-1]))
    return {"masked": torch.einsum("bnd,bn->bd", tokens_BND, weight_BN), "top": top_BKD.mean(dim=1)}
