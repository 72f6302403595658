"""Encode: encodes a clean view of every region by the frozen trunk, and computes frozen features.

The trunk encodes a view once. Its output gives both the visible tokens for a trained classifier (`clean_views`) and the
features for clustering, the number of classes, and the selection of a head (`features`). For regions with features, a
second view without its mean color is encoded. Methods that cluster averages over views get features less the ring
around a region of the clean view, and of the regions that may be clustered those of all fixed views, some five to
twelve passes more.

Shape suffixes: B regions, N patches, D token width.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow.compute as pc

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import decode_mask, decode_rgb
from ancd_ray.discovery.features import FEATURES
from ancd_ray.discovery.features.viewed import N_VIEWS, Symmetry, Viewed
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, is_sampled
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from ancd_ray.backbones.base import Backbone

_BATCH = 32
_FEW_IMAGES = 100  # of fewer, all regions have views: there may be fewer images than classes
_TOP = 0.1  # share of the patches that `top` averages (UniFormaly takes a few per cent of a whole image)


@dataclass(frozen=True)
class Encode(Stage):
    """Computes clean views and features of regions.

    `keep_views`: whether the table `clean_views` is written. `max_features`: approximate number of regions with
    features, sampled by image; None for all. `symmetry`: turns among the fixed views; None if there are no such views.
    """

    name: ClassVar[str] = "encode"
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = "model"

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        regions: Table

    class Out:
        """Artifacts that the stage makes, by role."""

        clean_views: Table
        features: Table

    backbone: BackboneConfig
    keep_views: bool
    max_features: int | None
    symmetry: Symmetry | None = None

    @property
    def makes(self) -> Sequence[str]:
        """Roles that it makes."""
        return ["clean_views", "features"] if self.keep_views else ["features"]

    @property
    def passes(self) -> int:
        """Passes of the trunk, in pairs: with its colors and without, and those of the fixed views."""
        return 1 if self.symmetry is None else 1 + (1 + N_VIEWS[self.symmetry]) // 2

    def run(self, context: Context, inputs: In) -> Work:
        """Encode the regions; the value `widths` holds the scales of a token."""
        from ancd_ray.backbones.loaded import load_cached

        share = 1.0
        if self.max_features is not None and inputs.regions.num_rows:
            share = min(1.0, self.max_features / inputs.regions.num_rows)
        viewed = self._choose_viewed(inputs.regions) if self.symmetry else None
        done = yield from context.map(
            EncodeRegions(self.backbone, self.keep_views, share, viewed), align_shards({"regions": inputs.regions})
        )
        model = load_cached(self.backbone)
        return Result.of_shards(done, {"widths": list(model.widths), "backbone_digest": model.digest()})

    def _choose_viewed(self, regions: Table) -> Viewed:
        """Choose the regions that have views: about as many as are clustered."""
        from ancd_ray.discovery.cluster_regions import MAX_REGIONS

        assert self.symmetry is not None
        n_images = len(pc.unique(regions.read(["image_id"]).column("image_id")))
        is_main = n_images >= _FEW_IMAGES
        return Viewed(self.symmetry, is_main, MAX_REGIONS / max(n_images if is_main else regions.num_rows, 1))


@dataclass(frozen=True)
class EncodeRegions:
    """Encodes the regions of a shard.

    `share` is the share of images whose regions have features; `viewed` tells those that have features of fixed views.
    """

    backbone: BackboneConfig
    keep_views: bool
    share: float
    viewed: Viewed | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `clean_views`, a batch at a time since they may be gigabytes, and of `features`."""
        batches = self._encode(shard.table("regions"))
        if not self.keep_views:
            return ShardResult({"features": [row for _, features in batches for row in features]})
        collected: list[dict[str, Any]] = []

        def take_views() -> Iterator[list[dict[str, Any]]]:
            for views, features in batches:
                collected.extend(features)
                yield views

        return ShardResult({"clean_views": take_views(), "features": collected})  # in this order they are written

    def _encode(self, regions: pa.Table) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
        from ancd_ray.backbones.loaded import load_cached
        from ancd_ray.discovery.features.views import add_fixed_views

        model = load_cached(self.backbone)
        names = (*FEATURES, "ringed") if self.viewed else FEATURES
        chosen = self.viewed.find(regions) if self.viewed else set()
        for start in range(0, regions.num_rows, _BATCH):
            rows = regions.slice(start, _BATCH).to_pylist()
            views, features = encode_regions(model, rows, self.keep_views, self.share, names)
            if self.viewed:
                add_fixed_views(model, rows, features, chosen, self.viewed.symmetry)
            yield views, features


def encode_regions(
    model: Backbone,
    regions: Sequence[Mapping[str, Any]],
    keep_views: bool = True,
    share: float = 1.0,
    names: Collection[str] = FEATURES,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compute the rows of `clean_views` and `features` of regions.

    Parameters
    ----------
    model
        Backbone that encodes them.
    regions
        Rows of the table `regions`.
    keep_views
        Whether to return rows of `clean_views`.
    share
        Share of the images whose regions have features.
    names
        Features that are computed, `FEATURES` or `ringed`; `centred` and `ringed` need another pass of the trunk each.
    """
    views, features = [], []
    for start in range(0, len(regions), _BATCH):
        batch = list(regions[start : start + _BATCH])
        twice = batch * 2 if len(batch) == 1 else batch  # products with one row round differently
        found = _encode_batch(model, twice, keep_views, share, names)
        views += found[0][: len(batch)]
        features += found[1][: len(batch)]
    return views, features


def _encode_batch(
    model: Backbone, regions: Sequence[Mapping[str, Any]], keep_views: bool, share: float, names: Collection[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    import torch

    from ancd_ray.backbones.base import view_rows
    from ancd_ray.discovery.features.ring import encode_rings, subtract_rings
    from ancd_ray.discovery.features.shape import compute_shape_cues
    from ancd_ray.method.views import clean_view, normalize_color, tensors

    masks = [decode_mask(region["mask"]) for region in regions]
    pairs = [
        clean_view(decode_rgb(region["image"]), mask, model.view_size)
        for region, mask in zip(regions, masks, strict=True)
    ]
    chosen = [i for i, region in enumerate(regions) if is_sampled(region["image_id"], share)]
    views: list[dict[str, Any]] = []
    with torch.no_grad():
        images_BCHW, masks_BHW = tensors(pairs, model.mean, model.std)
        own_BCHW = normalize_color(images_BCHW, model.color_normalization)
        full_BHW = masks_BHW.clone()
        full_BHW[masks_BHW.amax(dim=(1, 2)) == 0] = 1.0  # without anomalous pixels the whole view counts
        all_BHW = torch.ones_like(masks_BHW)
        if keep_views:
            encoded = model.encode(own_BCHW, masks_BHW, keep_hidden=True)
            views = view_rows(encoded, [(region, 0) for region in regions])
        if not chosen:
            return views, []
        masks_BHW, found = full_BHW, {}
        if {"masked", "top", "centred"} & set(names):
            if not keep_views or not model.tokens_ignore_mask:
                encoded = model.encode(own_BCHW, all_BHW)
            found = {name: values[chosen] for name, values in _summarize(encoded.tokens_BND, masks_BHW, model).items()}
            found["centred"] = found["masked"]
        if "centred" in names and model.color_normalization != "centred":
            centred_BCHW = normalize_color(images_BCHW[chosen], "centred")
            tokens_BND = model.encode(centred_BCHW, all_BHW[chosen]).tokens_BND
            found["centred"] = _summarize(tokens_BND, masks_BHW[chosen], model)["masked"]
    arrays = {name: values.cpu().numpy() for name, values in found.items() if name in names}
    if "ringed" in names:
        rings_B2D = encode_rings(model, [pairs[i] for i in chosen]).numpy()
        arrays["ringed"] = subtract_rings(rings_B2D).astype(np.float32)
    features = []
    for row, i in enumerate(chosen):
        region = regions[i]
        about = {key: region[key] for key in ("region_id", "image_id", "product", "role", "label", "area", "score")}
        features.append({**about, **{name: values[row].tolist() for name, values in arrays.items()}})
        if "shape" in names:
            features[-1]["shape"] = compute_shape_cues(masks[i], region["x1"] - region["x0"]).tolist()
    return views, features


def _summarize(tokens_BND: Tensor, masks_BHW: Tensor, model: Backbone) -> dict[str, Tensor]:
    return summarize_tokens(tokens_BND[..., : sum(model.widths)].float(), masks_BHW.to(tokens_BND.device))


def summarize_tokens(tokens_BND: Tensor, masks_BHW: Tensor) -> dict[str, Tensor]:
    """Average patch tokens inside masks that are not empty.

    Parameters
    ----------
    tokens_BND
        Patch tokens of a square grid; further tokens (registers) are ignored.
    masks_BHW
        Masks in 0..1.

    Returns
    -------
    `masked` (B, D), the mean weighted by each patch's share of the mask, and `top` (B, D), the mean of the tenth of the
    patches with most of the mask.
    """
    import torch
    import torch.nn.functional as F

    side = math.isqrt(tokens_BND.shape[1])
    tokens_BND = tokens_BND[:, : side**2]
    share_BN = F.adaptive_avg_pool2d(masks_BHW[:, None], (side, side)).flatten(1)
    weight_BN = share_BN / share_BN.sum(dim=1, keepdim=True)
    top_BK = share_BN.topk(max(1, round(_TOP * side**2)), dim=1).indices
    top_BKD = tokens_BND.gather(1, top_BK[..., None].expand(-1, -1, tokens_BND.shape[-1]))
    return {"masked": torch.einsum("bnd,bn->bd", tokens_BND, weight_BN), "top": top_BKD.mean(dim=1)}
