"""Applies a detector that knows nothing of tiles, such as an exported graph, to the tiles of large images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ancd_ray.data.images import BadImage, ImageU8
from ancd_ray.data.roi import OUTSIDE
from ancd_ray.data.sources import read_rgb
from ancd_ray.detectors.base import AnomalyMap, ImageRow, Scorer
from ancd_ray.detectors.tiles import Blend, TileConfig, TileGrid, find_inside, limit_map

_BATCH = 8  # tiles per call
_SEEN = 64  # points a side of a tile at which it is looked for the region of interest


class TiledScorer:
    """Blends the maps that another scorer computes of tiles; see `base.Scorer`.

    Parameters
    ----------
    scorer
        Computes the map of an image from its pixels alone, whatever their number.
    config
        Size of the tiles.
    """

    def __init__(self, scorer: Scorer, config: TileConfig) -> None:
        self._scorer, self._config = scorer, config

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute maps at the resolution of those of tiles; that of a large image has a fraction of it."""
        return [self._score(image) for image in images]

    def _score(self, image: ImageRow) -> AnomalyMap | BadImage:
        try:
            rgb = read_rgb(image)
        except BadImage as error:
            return error
        grid = TileGrid.cover(rgb.shape[0], rgb.shape[1], self._config)
        if grid.is_single:
            return self._scorer.score([_cut(image, rgb)])[0]
        roi = image.get("roi")
        tiles = iter(tile for tile in grid if find_inside(roi, grid, tile, (_SEEN, _SEEN)).any())
        blend = None
        while batch := list(islice(tiles, _BATCH)):
            rows = [_cut(image, rgb[tile.y0 : tile.y1, tile.x0 : tile.x1]) for tile in batch]
            for tile, found in zip(batch, self._scorer.score(rows), strict=True):
                if isinstance(found, BadImage):
                    return found
                if blend is None:
                    height = round(grid.height * found.shape[0] / grid.tile_height)
                    blend = Blend(grid, limit_map(height, round(grid.width * found.shape[1] / grid.tile_width))[0])
                blend.add(tile, np.asarray(found, np.float32))
        return BadImage(OUTSIDE) if blend is None else blend.map_HW


def _cut(image: ImageRow, rgb: ImageU8) -> Mapping[str, Any]:
    """Return the row of a part of an image."""
    return {**image, "pixels": rgb, "height": rgb.shape[0], "width": rgb.shape[1]}
