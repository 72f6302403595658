"""Overlapping tiles of large images, and the blending of what is found in them to one map.

A tile is scored as if it were an image. The score of a pixel of the map is the mean of those of the tiles that cover
it, weighted by a raised cosine that vanishes at the borders of a tile: the weights of neighbors cross over smoothly,
and what the borders of a tile do to features is suppressed. Tiles lie on a grid, so the weights and the interpolation
within a tile are products of one factor for rows and one for columns, and sums over weights need no map of their own.

Shape suffixes: H W pixels of the map (h w those under a tile), R C rows and columns of scores of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ancd_ray.config.base import Section
from ancd_ray.data.roi import Roi, Window

MAP_PIXELS = 8 << 20  # pixels of the map of a tiled image at most: 32 MB; patches of features are larger than these
_EDGE = 1e-6  # weight at the border of a tile, which at the border of the image is the only one

Floats = NDArray[np.float32]


class TileConfig(Section):
    """Tiles in pixels of the image; an image that is not larger than a tile has none."""

    size: Annotated[int, Field(ge=64, le=4096)]
    overlap: Annotated[int, Field(ge=0)] = 64  # of neighbors, at least

    @model_validator(mode="after")
    def _check_overlap(self) -> TileConfig:
        if self.overlap > self.size // 2:
            raise ValueError(f"tile.overlap {self.overlap} is more than half of tile.size {self.size}")
        return self


class Tile(NamedTuple):
    """A tile: its row and column in the grid, and its place (left, top, right, bottom) in pixels of the image."""

    row: int
    column: int
    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class TileGrid:
    """Places of the tiles of an image, all of one size."""

    height: int  # of the image, pixels
    width: int
    tile_height: int
    tile_width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @classmethod
    def cover(cls, height: int, width: int, config: TileConfig | None) -> TileGrid:
        """Cover an image with tiles, evenly spaced; without a config with a single one."""
        if config is None or (height <= config.size and width <= config.size):
            return cls(height, width, height, width, (0,), (0,))
        tops, lefts = (_spread(length, config) for length in (height, width))
        return cls(height, width, min(height, config.size), min(width, config.size), tops, lefts)

    @property
    def is_single(self) -> bool:
        """Whether one tile covers the image."""
        return len(self) == 1

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles row by row."""
        for row, top in enumerate(self.tops):
            for column, left in enumerate(self.lefts):
                yield Tile(row, column, left, top, left + self.tile_width, top + self.tile_height)


def _spread(length: int, config: TileConfig) -> tuple[int, ...]:
    """Return the starts of tiles along a side of the image: as few as overlap by `config.overlap`, evenly spaced."""
    if length <= config.size:
        return (0,)
    n = math.ceil((length - config.overlap) / (config.size - config.overlap))
    return tuple(int(start) for start in np.linspace(0, length - config.size, n).round())


class _Strip(NamedTuple):
    """Pixels of the map under the tiles of a row (or column) of the grid, and weighted interpolation (h, R) to them."""

    pixels: slice
    matrix: Floats


class Blend:
    """The map of an image, made of the scores of its tiles.

    Parameters
    ----------
    grid
        Tiles of the image.
    shape
        Height and width of the map; at most that of the image, and aligned with it.
    """

    def __init__(self, grid: TileGrid, shape: tuple[int, int]) -> None:
        self.map_HW: Floats = np.zeros(shape, np.float32)
        self._grid = grid
        self._strips: dict[tuple[int, int], tuple[list[_Strip], list[_Strip]]] = {}  # by rows and columns of scores

    def add(self, tile: Tile, scores_RC: NDArray[np.floating[Any]]) -> None:
        """Add the scores of a tile, at any resolution."""
        rows, columns = self._find_strips(scores_RC.shape[0], scores_RC.shape[1])
        down, across = rows[tile.row], columns[tile.column]
        self.map_HW[down.pixels, across.pixels] += down.matrix @ scores_RC.astype(np.float32) @ across.matrix.T

    def _find_strips(self, rows: int, columns: int) -> tuple[list[_Strip], list[_Strip]]:
        if (rows, columns) not in self._strips:
            grid, (height, width) = self._grid, self.map_HW.shape
            self._strips[rows, columns] = (
                _make_strips(grid.tops, grid.tile_height, grid.height, height, rows),
                _make_strips(grid.lefts, grid.tile_width, grid.width, width, columns),
            )
        return self._strips[rows, columns]


def _make_strips(starts: tuple[int, ...], tile: int, length: int, n_pixels: int, n_cells: int) -> list[_Strip]:
    """Compute the strips along one side.

    Parameters
    ----------
    starts, tile, length
        Starts and side of the tiles, and side of the image, in pixels of the image.
    n_pixels
        Side of the map.
    n_cells
        Number of scores along the tile.
    """
    center_H = (np.arange(n_pixels) + 0.5) * length / n_pixels  # of the pixels of the map, in the image
    total_H = np.zeros(n_pixels)
    found = []
    for start in starts:
        inside = np.flatnonzero((center_H >= start) & (center_H < start + tile))
        cell_h = (center_H[inside] - start) / tile * n_cells - 0.5
        # Scores reach from the center of the first cell to that of the last; beyond them there is no weight.
        reach_h = np.clip(cell_h / max(n_cells - 1, 1), 0, 1) if n_cells > 1 else np.full(len(inside), 0.5)
        weight_h = np.maximum(np.sin(np.pi * reach_h) ** 2, _EDGE)
        lower_h = np.clip(np.floor(cell_h), 0, max(n_cells - 2, 0)).astype(int)
        share_h = np.clip(cell_h - lower_h, 0, 1) if n_cells > 1 else np.zeros(len(inside))
        matrix_hR = np.zeros((len(inside), n_cells))
        each = np.arange(len(inside))
        matrix_hR[each, lower_h] = weight_h * (1 - share_h)
        if n_cells > 1:
            matrix_hR[each, lower_h + 1] = weight_h * share_h
        pixels = slice(int(inside[0]), int(inside[-1]) + 1)
        total_H[pixels] += weight_h
        found.append((pixels, matrix_hR))
    return [_Strip(pixels, (matrix / total_H[pixels, None]).astype(np.float32)) for pixels, matrix in found]


def limit_map(height: int, width: int) -> tuple[tuple[int, int], int]:
    """Return the shape of a map that has at most `MAP_PIXELS`, and by which whole number its sides are divided."""
    factor = max(1, math.ceil(math.sqrt(height * width / MAP_PIXELS)))
    return (max(1, round(height / factor)), max(1, round(width / factor))), factor


def find_inside(roi: Roi | None, grid: TileGrid, tile: Tile, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Find which of the points (R, C), the centers of the cells of a tile, are in the region of interest."""
    if roi is None:
        return np.ones(shape, bool)
    return roi.draw((grid.height, grid.width), shape, Window(tile.x0, tile.y0, tile.x1, tile.y1))
