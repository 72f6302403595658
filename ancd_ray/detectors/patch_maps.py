"""Anomaly maps of scores of patches.

Shape suffixes: H W pixels of the map, R C rows and columns of patches of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.data.images import BadImage
from ancd_ray.data.roi import OUTSIDE
from ancd_ray.detectors.base import AnomalyMap, ImageRow
from ancd_ray.detectors.patch_features import ImageFeatures, PatchGrid, compute_features
from ancd_ray.detectors.patches import PatchDetector
from ancd_ray.detectors.tiles import Blend, TileGrid, limit_map


def make_maps(
    backbone: Backbone,
    config: PatchDetector,
    images: Sequence[ImageRow],
    neighborhoods: Sequence[int],
    score: Callable[[str, list[PatchGrid]], Sequence[Tensor]],
) -> list[AnomalyMap | BadImage]:
    """Make the map of each image, or the reason why there is none; `score` gets the id of the image and a tile."""
    maps: list[AnomalyMap | BadImage] = []
    for image, found in compute_features(backbone, config, images, neighborhoods):
        if isinstance(found, BadImage):
            maps.append(found)
        else:
            maps.append(make_map(found, partial(score, image["image_id"]), config, backbone.stride))
    return maps


def make_map(
    features: ImageFeatures,
    score: Callable[[list[PatchGrid]], Sequence[Tensor]],
    config: PatchDetector,
    stride: int,
) -> AnomalyMap | BadImage:
    """Make the map of an image, or return why there is none.

    Scores of all sizes are averaged at the resolution of the first, and those of tiles blended; the map is smoothed,
    and has no score outside the region of interest. A map of many tiles has a fraction of the resolution.

    Parameters
    ----------
    features
        Features of the image.
    score
        Computes the scores (R, C) of a tile at each size.
    config
        Settings of the detector.
    stride
        Side of a patch, in pixels.
    """
    blend = inside = None
    factor = 1
    for tile, grids in features.tiles:
        scores = [each.cpu().numpy() for each in score(grids)]
        if blend is None:
            shape, factor = _find_shape(features.grid, scores[0].shape, stride)
            blend = Blend(features.grid, shape)
            inside = Blend(features.grid, shape) if features.roi else None
        for score_RC in scores:
            if inside is not None:
                inside_RC = features.find_inside(tile, (score_RC.shape[0], score_RC.shape[1])).astype(np.float32)
                inside.add(tile, inside_RC / len(scores))
                score_RC = score_RC * inside_RC  # noqa: PLW2901
            blend.add(tile, score_RC / len(scores))
    if blend is None:
        return BadImage(OUTSIDE)
    map_HW = _smooth(blend.map_HW, config.smoothing / factor)
    if inside is not None and features.roi is not None:
        # What lies outside does not count where the scores of patches are interpolated and smoothed.
        map_HW /= np.maximum(_smooth(inside.map_HW, config.smoothing / factor), 1e-3)
        map_HW *= features.roi.draw((features.grid.height, features.grid.width), map_HW.shape)
    return apply_gamma(map_HW, config.map_gamma)


def _find_shape(grid: TileGrid, scores: Sequence[int], stride: int) -> tuple[tuple[int, int], int]:
    """Return the shape of the map, given that of the scores of a tile, and the fraction of the full resolution."""
    height = round(grid.height * scores[0] * stride / grid.tile_height)
    width = round(grid.width * scores[1] * stride / grid.tile_width)
    return ((height, width), 1) if grid.is_single else limit_map(height, width)


def _smooth(map_HW: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(map_HW, (0, 0), sigma), np.float32) if sigma else map_HW


def apply_gamma(map_HW: AnomalyMap, exponent: float) -> AnomalyMap:
    """Compute max · (map / max) ^ exponent: the image score is unchanged, values far below it are reduced.

    Distances to the memory bank have a floor that differs between images, which alone causes false positives at a
    threshold that is the same for all images.
    """
    highest = max(float(map_HW.max()), 1e-12)
    if exponent == 1:
        return map_HW
    return np.asarray(highest * (map_HW / highest) ** exponent, np.float32)
