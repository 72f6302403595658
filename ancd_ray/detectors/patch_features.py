"""Patch features of images, or of their tiles, by a frozen backbone.

In our measurements, these matter more than the choice of the trunk: several scales, each L2-normalized; the aspect
ratio is kept; images are normalized to the same mean and contrast.

Shape suffixes: B images, H W pixels, R C rows and columns of patches, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.data.images import BadImage, ImageU8
from ancd_ray.data.roi import Roi
from ancd_ray.data.sources import read_rgb
from ancd_ray.detectors.base import ImageRow
from ancd_ray.detectors.patches import PatchDetector
from ancd_ray.detectors.tiles import Tile, TileGrid, find_inside

_BATCH = 8  # images
_TILE_PIXELS = 1 << 19  # of prepared tiles that go through the trunk at once; activations take 350 bytes a pixel
_SEEN = 64  # points a side of a tile at which it is looked for the region of interest


class PatchGrid(NamedTuple):
    """Features (R, C, D) of a tile at one size, each the mean of a square of `neighborhood` patches a side."""

    image_size: int
    neighborhood: int
    features_RCD: Tensor


class ImageFeatures(NamedTuple):
    """Features of an image: those of its tiles, which are computed while one goes over them, once."""

    grid: TileGrid
    tiles: Iterable[tuple[Tile, list[PatchGrid]]]
    roi: Roi | None

    def find_inside(self, tile: Tile, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Find the patches (R, C) of a tile whose centers are in the region of interest."""
        return find_inside(self.roi, self.grid, tile, shape)


def compute_features(
    backbone: Backbone, config: PatchDetector, images: Sequence[ImageRow], neighborhoods: Sequence[int]
) -> Iterator[tuple[ImageRow, ImageFeatures | BadImage]]:
    """Compute features of each image by tile, size and neighbourhood, or the reason why there are none, in order.

    Images without tiles are computed in batches. The tiles of an image are computed while one goes over them, before
    the next image is asked for.
    """
    waiting: list[tuple[ImageRow, ImageU8 | BadImage]] = []
    for image in images:
        rgb = _decode(image)
        is_tiled = not isinstance(rgb, BadImage) and not _make_grid(rgb, config).is_single
        if is_tiled or len(waiting) == _BATCH:
            yield from _compute_untiled(backbone, config, waiting, neighborhoods)
            waiting = []
        if isinstance(rgb, BadImage) or not is_tiled:
            waiting.append((image, rgb))
            continue
        grid, roi = _make_grid(rgb, config), image.get("roi")
        yield image, ImageFeatures(grid, _compute_tiles(backbone, config, rgb, grid, roi, neighborhoods), roi)
    yield from _compute_untiled(backbone, config, waiting, neighborhoods)


def _decode(image: ImageRow) -> ImageU8 | BadImage:
    try:
        return read_rgb(image)
    except BadImage as error:
        return error


def _make_grid(rgb: ImageU8, config: PatchDetector) -> TileGrid:
    return TileGrid.cover(rgb.shape[0], rgb.shape[1], config.tile)


def _compute_untiled(
    backbone: Backbone,
    config: PatchDetector,
    images: Sequence[tuple[ImageRow, ImageU8 | BadImage]],
    neighborhoods: Sequence[int],
) -> Iterator[tuple[ImageRow, ImageFeatures | BadImage]]:
    """Compute the features of a batch of images that are a single tile."""
    found: dict[int, list[PatchGrid]] = {i: [] for i, (_, rgb) in enumerate(images) if not isinstance(rgb, BadImage)}
    for size in config.sizes:
        pixels = {i: prepare(images[i][1], size, config.brightness, backbone) for i in found}  # type: ignore[arg-type]
        for i, levels in _compute_levels(backbone, pixels):
            cells = count_cells(pixels[i], backbone)
            found[i] += [PatchGrid(size, side, _pool(levels, side, cells, config.position)) for side in neighborhoods]
    for i, (image, rgb) in enumerate(images):
        if isinstance(rgb, BadImage):
            yield image, rgb
            continue
        grid = _make_grid(rgb, config)
        yield image, ImageFeatures(grid, [(next(iter(grid)), found[i])], image.get("roi"))


def _compute_tiles(
    backbone: Backbone,
    config: PatchDetector,
    rgb: ImageU8,
    grid: TileGrid,
    roi: Roi | None,
    neighborhoods: Sequence[int],
) -> Iterator[tuple[Tile, list[PatchGrid]]]:
    """Compute the features of the tiles of an image, a few at a time, without those outside the region of interest.

    All tiles are brought to the brightness of the image: a smooth tile, brought to the contrast of others, would be
    all noise, and neighbors would not match.
    """
    assert config.tile is not None
    brightness = measure_levels(rgb, backbone) if config.brightness else False
    places = [tile for tile in grid if roi is None or find_inside(roi, grid, tile, (_SEEN, _SEEN)).any()]
    scale = max(config.sizes) / config.tile.size
    n = max(1, int(_TILE_PIXELS / (grid.tile_height * grid.tile_width * scale**2)))
    for start in range(0, len(places), n):
        batch = places[start : start + n]
        found: list[list[PatchGrid]] = [[] for _ in batch]
        for size in config.sizes:
            side = size * max(grid.tile_height, grid.tile_width) / config.tile.size
            pixels = {
                i: prepare(rgb[tile.y0 : tile.y1, tile.x0 : tile.x1], side, brightness, backbone)
                for i, tile in enumerate(batch)
            }
            for i, levels in _compute_levels(backbone, pixels):
                cells, place = count_cells(pixels[i], backbone), (grid, batch[i])
                for side in neighborhoods:
                    found[i].append(PatchGrid(size, side, _pool(levels, side, cells, config.position, place)))
        yield from zip(batch, found, strict=True)


def prepare(
    rgb: ImageU8, long_side: float, brightness: bool | tuple[float, float], backbone: Backbone
) -> NDArray[np.float32]:
    """Prepare an image (H, W, 3), or a tile, for the trunk: resize it, and normalize its colors.

    The aspect ratio is kept, up to sides that are multiples of `backbone.multiple`. `brightness` has the mean and
    contrast of which it is freed, or says whether it is freed of its own.
    """
    height, width = rgb.shape[:2]
    scale = long_side / max(height, width)
    step = backbone.multiple
    size = [max(step, round(n * scale / step) * step) for n in (width, height)]
    resized = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    mean, contrast = 0.0, 1.0
    if brightness:
        mean, contrast = brightness if isinstance(brightness, tuple) else measure_levels(resized, backbone)
    # Both normalizations are one multiplication and one addition, over rows of pixels and channels.
    std = np.asarray(backbone.std)
    factor = np.tile(1 / (255 * std * contrast), size[0]).astype(np.float32)
    offset = np.tile(-(np.asarray(backbone.mean) / std + mean) / contrast, size[0]).astype(np.float32)
    values = np.multiply(resized.reshape(size[1], -1), factor, dtype=np.float32)
    values += offset
    return np.asarray(values.reshape(resized.shape), np.float32)


def measure_levels(rgb: ImageU8, backbone: Backbone) -> tuple[float, float]:
    """Measure mean and standard deviation of an image (H, W, 3) over all channels, in the colors of the trunk."""
    mean, std = (each.ravel() / 255 for each in cv2.meanStdDev(rgb))
    mean, std = (mean - np.asarray(backbone.mean)) / np.asarray(backbone.std), std / np.asarray(backbone.std)
    variance = float((std**2 + mean**2).mean() - mean.mean() ** 2)
    return float(mean.mean()), max(variance**0.5, 1e-2)


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
        averaged = level.contiguous(memory_format=torch.channels_last)  # for averages that are vectorized
        if neighborhood > 1:
            averaged = F.avg_pool2d(averaged, neighborhood, 1, neighborhood // 2, count_include_pad=False)
        finer = averaged.shape[-1] > grid[1]
        resized = F.adaptive_avg_pool2d(averaged, grid) if finer else F.interpolate(averaged, grid, mode="bilinear")
        scales.append(F.normalize(resized, dim=1))
    return torch.cat(scales, dim=1)[0].permute(1, 2, 0).float()


def count_cells(pixels_HWC: NDArray[np.float32], backbone: Backbone) -> tuple[int, int]:
    """Return the rows and columns of patches of a prepared image."""
    return pixels_HWC.shape[0] // backbone.stride, pixels_HWC.shape[1] // backbone.stride


def _pool(
    levels: Sequence[Tensor],
    side: int,
    cells: tuple[int, int],
    position: float,
    place: tuple[TileGrid, Tile] | None = None,
) -> Tensor:
    """Make the features (R, C, D) of an image, or of a tile at a place."""
    features_RCD = pool_levels(levels, side, cells)
    return _add_position(features_RCD, position, place) if position else features_RCD


def _add_position(features_RCD: Tensor, weight: float, place: tuple[TileGrid, Tile] | None) -> Tensor:
    """Append the place of each patch, so that the distance of places counts with the distance of features."""
    rows, columns, _ = features_RCD.shape
    y_R = (torch.arange(rows, device=features_RCD.device) + 0.5) / max(rows, columns)
    x_C = (torch.arange(columns, device=features_RCD.device) + 0.5) / max(rows, columns)
    if place is not None:
        grid, tile = place
        long_side, patch = max(grid.height, grid.width), max(grid.tile_height, grid.tile_width)
        y_R, x_C = (y_R * patch + tile.y0) / long_side, (x_C * patch + tile.x0) / long_side
    place_RC2 = torch.stack(torch.meshgrid(y_R, x_C, indexing="ij"), dim=-1)
    return torch.cat([features_RCD, weight * place_RC2], dim=-1)
