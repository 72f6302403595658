"""Patch features of images by a frozen backbone, and anomaly maps of scores of patches.

In our measurements, these matter more than the choice of the trunk: several scales, each L2-normalized; the aspect
ratio is kept; images are normalized to the same mean and contrast.

Shape suffixes: B images, H W pixels, R C rows and columns of patches, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.data.images import BadImage, ImageU8
from ancd_ray.data.sources import read_rgb
from ancd_ray.detectors.base import AnomalyMap, ImageRow
from ancd_ray.detectors.patches import PatchDetector

_BATCH = 8


class PatchGrid(NamedTuple):
    """Features (R, C, D) of an image at one size, each the mean of a square of `neighborhood` patches a side."""

    image_size: int
    neighborhood: int
    features_RCD: Tensor


def compute_features(
    backbone: Backbone, config: PatchDetector, images: Sequence[ImageRow], neighborhoods: Sequence[int]
) -> Iterator[tuple[ImageRow, list[PatchGrid] | BadImage]]:
    """Compute features of each image by size and neighbourhood, or the reason why there are none, in order."""
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        decoded = [_decode(image) for image in batch]
        found: dict[int, list[PatchGrid]] = {i: [] for i, rgb in enumerate(decoded) if not isinstance(rgb, BadImage)}
        for size in config.sizes:
            pixels = {i: prepare(decoded[i], size, config.brightness, backbone) for i in found}  # type: ignore[arg-type]
            for i, levels in _compute_levels(backbone, pixels):
                grid = (pixels[i].shape[0] // backbone.stride, pixels[i].shape[1] // backbone.stride)
                for side in neighborhoods:
                    features_RCD = pool_levels(levels, side, grid)
                    if config.position:
                        features_RCD = _add_position(features_RCD, config.position)
                    found[i].append(PatchGrid(size, side, features_RCD))
        for i, image in enumerate(batch):
            rgb = decoded[i]
            yield image, rgb if isinstance(rgb, BadImage) else found[i]


def _decode(image: ImageRow) -> ImageU8 | BadImage:
    try:
        return read_rgb(image)
    except BadImage as error:
        return error


def prepare(rgb: ImageU8, long_side: int, brightness: bool, backbone: Backbone) -> NDArray[np.float32]:
    """Prepare an image (H, W, 3) for the trunk: resize it, and normalize its colors and optionally its brightness.

    The aspect ratio is kept, up to sides that are multiples of `backbone.multiple`.
    """
    height, width = rgb.shape[:2]
    scale = long_side / max(height, width)
    step = backbone.multiple
    size = [max(step, round(n * scale / step) * step) for n in (width, height)]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    values = cv2.resize(rgb, size, interpolation=interpolation).astype(np.float32) / 255
    values = (values - np.asarray(backbone.mean, np.float32)) / np.asarray(backbone.std, np.float32)
    if brightness:
        values = (values - values.mean()) / max(float(values.std()), 1e-2)
    return np.asarray(values, np.float32)


def _compute_levels(
    backbone: Backbone, pixels_HWC: Mapping[int, NDArray[np.float32]]
) -> Iterator[tuple[int, list[Tensor]]]:
    """Compute the feature maps (1, C, rows, cols) of images, the finest first; equal shapes are one batch."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, values in pixels_HWC.items():
        by_shape.setdefault(values.shape, []).append(i)
    for members in by_shape.values():
        images_BHWC = torch.from_numpy(np.stack([pixels_HWC[i] for i in members]))
        levels = backbone.patch_features(images_BHWC.permute(0, 3, 1, 2).to(backbone.device), backbone.detector_layers)
        for row, i in enumerate(members):
            yield i, [level[row : row + 1] for level in levels]


def pool_levels(levels: Sequence[Tensor], neighborhood: int, grid: tuple[int, int]) -> Tensor:
    """Average each level over squares of its own patches, and join them on a grid: features (R, C, D).

    Finer levels are averaged within the patches of the grid, coarser ones are interpolated.
    """
    scales = []
    for level in levels:
        averaged = level
        if neighborhood > 1:
            averaged = F.avg_pool2d(level, neighborhood, 1, neighborhood // 2, count_include_pad=False)
        finer = averaged.shape[-1] > grid[1]
        resized = F.adaptive_avg_pool2d(averaged, grid) if finer else F.interpolate(averaged, grid, mode="bilinear")
        scales.append(F.normalize(resized, dim=1))
    return torch.cat(scales, dim=1)[0].permute(1, 2, 0).float()


def _add_position(features_RCD: Tensor, weight: float) -> Tensor:
    """Append the place of each patch, so that the distance of places counts with the distance of features."""
    rows, columns, _ = features_RCD.shape
    y_R = (torch.arange(rows, device=features_RCD.device) + 0.5) / max(rows, columns)
    x_C = (torch.arange(columns, device=features_RCD.device) + 0.5) / max(rows, columns)
    place_RC2 = torch.stack(torch.meshgrid(y_R, x_C, indexing="ij"), dim=-1)
    return torch.cat([features_RCD, weight * place_RC2], dim=-1)


def make_map(scores: Sequence[Tensor], config: PatchDetector, stride: int) -> AnomalyMap:
    """Make the map of scores (R, C) at several sizes: upsampled to that of the first, averaged and smoothed."""
    rows, columns = scores[0].shape
    total = np.zeros((rows * stride, columns * stride), np.float32)
    for score_RC in scores:
        total += cv2.resize(score_RC.cpu().numpy(), total.shape[::-1], interpolation=cv2.INTER_LINEAR)
    mean = total / len(scores)
    if config.smoothing:
        mean = cv2.GaussianBlur(mean, (0, 0), config.smoothing)
    return apply_gamma(mean, config.map_gamma)


def apply_gamma(map_HW: AnomalyMap, exponent: float) -> AnomalyMap:
    """Compute max · (map / max) ^ exponent: the image score is unchanged, values far below it are reduced.

    Distances to the memory bank have a floor that differs between images, which alone causes false positives at a
    threshold that is the same for all images.
    """
    highest = max(float(map_HW.max()), 1e-12)
    return np.asarray(highest * (map_HW / highest) ** exponent, np.float32)
