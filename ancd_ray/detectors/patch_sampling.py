"""Samples of the patch features of an image, which states of detectors are fitted to.

Shape suffixes: R C rows and columns of patches, N patches, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancd_ray.detectors.patch_features import ImageFeatures, PatchGrid


class PatchSample(NamedTuple):
    """Features (N, D) of some patches of an image at one size and neighbourhood, and how many a tile has."""

    image_size: int
    neighborhood: int
    n_of_tile: int
    features_ND: Tensor


def sample_patches(features: ImageFeatures, count: Callable[[int], int], seed: int) -> list[PatchSample]:
    """Sample patches of an image, of all of its tiles and in the region of interest, at each size and neighbourhood.

    Parameters
    ----------
    features
        Features of the image.
    count
        Returns how many patches are sampled at most, of the number of patches of a tile.
    seed
        Seed of the sample.

    Returns
    -------
    list of PatchSample
        In the order of sizes and neighbourhoods; patches are in the order of the tiles.
    """
    rng = np.random.default_rng(seed)
    chosen: list[dict[tuple[int, int], NDArray[np.bool_]]] = []  # by row and column of the tile
    kept: list[list[Tensor]] = []
    kinds: list[PatchGrid] = []
    for tile, grids in features.tiles:
        if not chosen:
            kinds = grids
            kept = [[] for _ in grids]
            chosen = [_choose(features, each.features_RCD.shape, count, rng) for each in grids]
        for i, each in enumerate(grids):
            is_chosen = torch.from_numpy(chosen[i][tile.row, tile.column].ravel())
            kept[i].append(each.features_RCD.flatten(0, 1)[is_chosen.to(each.features_RCD.device)].cpu())
    return [
        PatchSample(each.image_size, each.neighborhood, each.features_RCD[..., 0].numel(), torch.cat(own))
        for each, own in zip(kinds, kept, strict=True)
    ]


def _choose(
    features: ImageFeatures, shape: Sequence[int], count: Callable[[int], int], rng: np.random.Generator
) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """Choose patches (R, C) of each tile."""
    rows, columns = shape[:2]
    inside = {(tile.row, tile.column): features.find_inside(tile, (rows, columns)) for tile in features.grid}
    flat = np.concatenate([each.ravel() for each in inside.values()])
    usable = np.flatnonzero(flat)
    flat[:] = False
    flat[usable[rng.permutation(len(usable))[: count(rows * columns)]]] = True
    return dict(zip(inside, flat.reshape(-1, rows, columns), strict=True))
