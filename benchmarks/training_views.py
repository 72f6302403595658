"""Views of the main regions of the sets of `quality.py`, and of a labeled base set, as trainings read them.

Of every region, augmented views as the stage `views` draws them and a clean view (number -1), encoded by the frozen
trunk in four ways: `kept` and `centred` as by `backbone.color_normalization`, `ringed` as by `backbone.ring: 0.5`, and
`subtracted`, where the average in the ring is taken off all tokens, each stride at its own grid.

Shape suffixes: B views, N tokens, H W grid, D token width.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ancd_ray.backbones.base import Backbone, Encoded, inputs, view_rows
from ancd_ray.backbones.loaded import load_cached
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import decode_mask, decode_rgb
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.discovery.features.ring import RING
from ancd_ray.discovery.main_regions import choose_main_regions
from ancd_ray.engine.artifacts import Table
from ancd_ray.method.rings import find_rings
from ancd_ray.method.views import Image, clean_view, random_view, tensors

N_VIEWS, N_BASE_VIEWS = 8, 2
_CONFIGS = {
    "kept": BackboneConfig(),
    "centred": BackboneConfig(color_normalization="centred"),
    "ringed": BackboneConfig(ring=0.5),
    "subtracted": BackboneConfig(color_normalization="centred"),
}
_GRID = 14  # tokens per side
_BATCH = 32


def read_views(regions: Table, folder: Path, name: str, kind: str, is_base: bool = False) -> pa.Table:
    """Read the views of a set; they are encoded if there is no file of them in the folder."""
    path = folder / f"{name}-{kind}.arrow"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = regions.read()
        if not is_base:
            image, area, score = (np.asarray(rows.column(name)) for name in ("image_id", "area", "score"))
            rows = rows.take(choose_main_regions(image, area, score))
        drafted = path.with_suffix(".part")
        with pa.OSFile(str(drafted), "wb") as file, pa.ipc.new_file(file, SCHEMAS["views"]) as writer:
            for encoded in _encode(rows, kind, N_BASE_VIEWS if is_base else N_VIEWS):
                writer.write_table(pa.Table.from_pylist(encoded, SCHEMAS["views"]))
        drafted.rename(path)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _encode(regions: pa.Table, kind: str, n_views: int) -> Iterator[list[dict[str, Any]]]:
    model = load_cached(_CONFIGS[kind])
    drawn: list[tuple[Any, int, Image, Image]] = []
    for start in range(0, regions.num_rows, _BATCH):
        for region in regions.slice(start, _BATCH).to_pylist():
            image, mask = decode_rgb(region["image"]), decode_mask(region["mask"])
            drawn.append((region, -1, *clean_view(image, mask, model.view_size)))
            for view in range(n_views):
                rng = np.random.default_rng([zlib.crc32(region["region_id"].encode()), view])
                drawn.append((region, view, *random_view(image, mask, rng, model.view_size)))
        while len(drawn) >= _BATCH or (drawn and start + _BATCH >= regions.num_rows):
            batch, drawn = drawn[:_BATCH], drawn[_BATCH:]
            views = [(image, mask) for _, _, image, mask in batch]
            encoded = encode_subtracted(model, views) if kind == "subtracted" else model.encode(*inputs(model, views))
            yield view_rows(encoded, [(region, view) for region, view, _, _ in batch])


@torch.no_grad()
def encode_subtracted(model: Backbone, views: list[tuple[Image, Image]]) -> Encoded:
    """Encode views without their mean color, all tokens less a share of the average in the ring around the mask."""
    images_BCHW, masks_BHW = tensors(views, model.mean, model.std, "centred")
    rings_BHW = find_rings(masks_BHW)
    cls, tokens = [], []
    for level_BDHW in model.patch_features(images_BCHW, model.class_layers):
        unit_BDHW = F.normalize(level_BDHW.float(), dim=1)
        ring_BD = RING * _average(unit_BDHW, rings_BHW)
        cls.append(_average(unit_BDHW, masks_BHW) - ring_BD)
        grid_BDHW = F.normalize(F.interpolate(level_BDHW.float(), (_GRID, _GRID), mode="bilinear"), dim=1)
        tokens.append(grid_BDHW - ring_BD[:, :, None, None])
    tokens_BND = torch.cat(tokens, dim=1).flatten(2).transpose(1, 2)
    share_BN = F.adaptive_avg_pool2d(masks_BHW[:, None], (_GRID, _GRID)).flatten(1)
    return Encoded(torch.cat(cls, dim=1), tokens_BND, share_BN >= 0.5)


def _average(tokens_BDHW: torch.Tensor, weight_BHW: torch.Tensor) -> torch.Tensor:
    """Average tokens by their shares of a weight; by equal ones where it is 0 everywhere."""
    share_BHW = F.adaptive_avg_pool2d(weight_BHW[:, None], tokens_BDHW.shape[2:])[:, 0]
    share_BHW = torch.where(share_BHW.sum(dim=(1, 2), keepdim=True) > 0, share_BHW, 1.0)
    return torch.einsum("bdhw,bhw->bd", tokens_BDHW, share_BHW) / share_BHW.sum(dim=(1, 2))[:, None]


class ViewSet:
    """Views of regions in the order of their ids: class token and visible tokens of each augmented and clean view.

    Parameters
    ----------
    views
        A table `views` with clean views (number -1) among them.
    region_ids
        The regions to take; None for all.
    convert
        A function of tokens (·, D), such as a whitening.
    """

    def __init__(
        self,
        views: pa.Table,
        region_ids: NDArray[np.str_] | None = None,
        convert: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    ) -> None:
        of_view, numbers = views.column("region_id").to_pylist(), views.column("view").to_pylist()
        ids = list(dict.fromkeys(of_view)) if region_ids is None else region_ids.tolist()
        row_of = {region_id: row for row, region_id in enumerate(ids)}
        self.drawn: list[list[View]] = [[] for _ in ids]
        clean: list[View | None] = [None] * len(ids)
        labels: list[str | None] = [None] * len(ids)
        for row, (region_id, number) in enumerate(zip(of_view, numbers, strict=True)):
            if region_id not in row_of:
                continue
            cls_D = np.frombuffer(views.column("cls")[row].as_buffer(), np.float16)
            tokens_LD = np.frombuffer(views.column("tokens")[row].as_buffer(), np.float16).reshape(-1, len(cls_D))
            view = (cls_D, tokens_LD) if convert is None else (convert(cls_D[None])[0], convert(tokens_LD))
            index = row_of[region_id]
            labels[index] = views.column("label")[row].as_py()
            if number < 0:
                clean[index] = view
            else:
                self.drawn[index].append(view)
        self.every = [[*drawn, view] for drawn, view in zip(self.drawn, clean, strict=True) if view is not None]
        self.labels = labels

    def __len__(self) -> int:
        return len(self.drawn)


View = tuple[NDArray[Any], NDArray[Any]]  # class token (D,), visible tokens (L, D)


def pack(views: Sequence[View]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad views to the input of a tail: class tokens (B, D), tokens (B, L, D), and which of these are no padding."""
    cls_BD = np.stack([cls_D for cls_D, _ in views]).astype(np.float32)
    longest = max(1, *(len(tokens_LD) for _, tokens_LD in views))
    tokens_BLD = np.zeros((len(views), longest, cls_BD.shape[1]), np.float32)
    mask_BL = np.zeros((len(views), longest), bool)
    for row, (_, tokens_LD) in enumerate(views):
        tokens_BLD[row, : len(tokens_LD)], mask_BL[row, : len(tokens_LD)] = tokens_LD, True
    return torch.from_numpy(cls_BD), torch.from_numpy(tokens_BLD), torch.from_numpy(mask_BL)
