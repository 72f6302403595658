"""Tiles: the blended map has no seams, covers line scans, and small defects of large images are found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from ancd_ray.data.images import BadImage
from ancd_ray.data.roi import PolygonRoi, Roi
from ancd_ray.data.sources import read_rgb
from ancd_ray.detectors.base import AnomalyMap, ImageRow
from ancd_ray.detectors.calibration import THINNED, thin_map
from ancd_ray.detectors.musc import MuSc
from ancd_ray.detectors.patchcore import PatchCore
from ancd_ray.detectors.tiled_scorer import TiledScorer
from ancd_ray.detectors.tiles import MAP_PIXELS, Blend, TileConfig, TileGrid, limit_map
from tests.detectors.fitting import compute_maps, fit


@pytest.mark.parametrize(("height", "width"), [(700, 1000), (120, 1600), (256, 257), (1000, 256)])
def test_tiles_cover_every_pixel_and_overlap(height: int, width: int) -> None:
    grid = TileGrid.cover(height, width, TileConfig(size=256, overlap=40))
    covered = np.zeros((height, width), int)
    for tile in grid:
        assert (tile.y1 - tile.y0, tile.x1 - tile.x0) == (min(256, height), min(256, width))
        covered[tile.y0 : tile.y1, tile.x0 : tile.x1] += 1  # a tile beyond the image would not fit
    assert covered.min() == 1
    for starts, side in ((grid.tops, grid.tile_height), (grid.lefts, grid.tile_width)):
        assert all(b - a <= side - 40 for a, b in pairwise(starts))


@pytest.mark.parametrize("size", [(256, 256), (100, 256), (256, 90)])
def test_an_image_that_is_no_larger_than_a_tile_has_one(size: tuple[int, int]) -> None:
    grid = TileGrid.cover(*size, TileConfig(size=256))
    assert grid == TileGrid.cover(*size, None)
    assert grid.is_single


def _blend(grid: TileGrid, shape: tuple[int, int], cells: int, score: Any) -> NDArray[np.float32]:
    """Blend the values of a function of x and y at the centers of the cells of each tile."""
    blend = Blend(grid, shape)
    for tile in grid:
        x = tile.x0 + (np.arange(cells) + 0.5) * grid.tile_width / cells
        y = tile.y0 + (np.arange(cells) + 0.5) * grid.tile_height / cells
        blend.add(tile, np.asarray(score(x[None, :], y[:, None]), np.float32))
    return blend.map_HW


@pytest.mark.parametrize("overlap", [0, 30, 100])
@pytest.mark.parametrize("shape", [(500, 900), (250, 450), (167, 300)])
def test_a_constant_scorer_has_a_constant_map(overlap: int, shape: tuple[int, int]) -> None:
    grid = TileGrid.cover(500, 900, TileConfig(size=200, overlap=overlap))
    made = _blend(grid, shape, 13, lambda x, y: 3.0 + 0 * (x + y))
    np.testing.assert_allclose(made, 3.0, atol=1e-5)


def test_a_linear_scorer_is_the_same_in_tiles() -> None:
    """Up to half a cell from the border of the image, where there is nothing to interpolate with."""
    grid = TileGrid.cover(500, 900, TileConfig(size=200, overlap=50))
    made = _blend(grid, (250, 450), 10, lambda x, y: 2 * x - y)
    y, x = ((np.arange(n) + 0.5) * 2 for n in (250, 450))
    np.testing.assert_allclose(made[6:-6, 6:-6], (2 * x[None, :] - y[:, None])[6:-6, 6:-6], atol=0.05)


def test_weights_of_neighbors_cross_over_smoothly() -> None:
    """Tiles that disagree make a slope over their overlap, no step."""
    grid = TileGrid.cover(100, 180, TileConfig(size=100, overlap=20))
    blend = Blend(grid, (100, 180))
    for tile in grid:
        blend.add(tile, np.full((25, 25), float(tile.column), np.float32))
    row = blend.map_HW[50]
    assert row[79] < 1e-3
    assert row[101] > 1 - 1e-3
    assert np.abs(np.diff(row)).max() < 0.15


def test_maps_of_large_images_are_bounded() -> None:
    assert limit_map(2000, 3000) == ((2000, 3000), 1)
    for height, width in ((10_000, 12_000), (16_000, 2_000)):
        (rows, columns), factor = limit_map(height, width)
        assert rows * columns <= MAP_PIXELS * 1.001
        assert (rows, columns) == (round(height / factor), round(width / factor))


def test_a_calibration_keeps_the_maximum_and_the_quantiles_of_a_large_map() -> None:
    values = np.random.default_rng(0).normal(size=(1501, 2003)).astype(np.float32)
    values[700, 901] = 50
    thinned = thin_map(values)
    assert thinned.size <= THINNED
    assert thinned.max() == 50
    assert np.quantile(thinned, 0.99) == pytest.approx(np.quantile(values, 0.99), abs=0.03)
    assert thin_map(values[:400, :400]).shape == (400, 400)


@pytest.mark.parametrize("tile", [{"size": 200, "overlap": 101}, {"size": 32}, {"size": 200, "overlap": -1}])
def test_wrong_tiles_are_refused(tile: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TileConfig(**tile)


def _write(
    folder: Path, i: int, at: tuple[int, int] | None = None, size: tuple[int, int] = (320, 700)
) -> dict[str, Any]:
    """Write a brushed surface, with a dark defect of 5 px in diameter at x, y."""
    rng = np.random.default_rng(i)
    brushed = cv2.GaussianBlur(rng.normal(size=size), (0, 0), sigmaX=40, sigmaY=1) * 90 + rng.normal(size=size) * 2
    image = np.repeat(np.clip(128 + brushed, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if at is not None:
        cv2.circle(image, at, 2, (10, 10, 10), -1)
    cv2.imwrite(str(folder / f"{i}.png"), image)
    return {
        "uri": str(folder / f"{i}.png"),
        "role": "query",
        "image_id": hashlib.sha256(str(i).encode()).hexdigest()[:20],
    }


class _Gradient:
    """Scores a tile by its gray levels, at a quarter of its size: the map of an image is its gray levels."""

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        maps = [read_rgb(image)[..., 0].astype(np.float32) for image in images]
        return [cv2.resize(each, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for each in maps]


def test_any_detector_can_be_applied_to_tiles() -> None:
    y, x = np.indices((400, 600))
    pixels = np.repeat((x / 4 + y / 8).astype(np.uint8)[..., None], 3, axis=2)
    row = {"image_id": "0" * 20, "pixels": pixels, "height": 400, "width": 600}
    (found,) = TiledScorer(_Gradient(), TileConfig(size=200, overlap=40)).score([row])
    (whole,) = _Gradient().score([row])
    assert not isinstance(found, BadImage)
    assert not isinstance(whole, BadImage)
    np.testing.assert_allclose(found, whole, atol=0.5)  # gray levels are whole numbers
    (single,) = TiledScorer(_Gradient(), TileConfig(size=600)).score([row])
    np.testing.assert_array_equal(np.asarray(single), whole)


TILE = TileConfig(size=160, overlap=32)
DEFECTS = ((550, 130), (190, 240))
DETECTORS = [
    PatchCore(name="patchcore", image_size=320, tile=TILE, map_gamma=1, coreset=1500),
    MuSc(name="musc", image_size=320, tile=TILE, map_gamma=1, neighborhoods=(1,)),
]


@pytest.mark.parametrize("config", DETECTORS, ids=lambda config: config.name)
def test_a_defect_of_5_pixels_is_found(tmp_path: Path, config: PatchCore | MuSc) -> None:
    """In tiles, at full resolution and more; as a whole the image is resized to a third, and the defect is lost."""
    learned = [_write(tmp_path, i) for i in range(3)]
    queries = [_write(tmp_path, 10 + i, at) for i, at in enumerate(DEFECTS)]
    scorer = fit(config, learned)
    for (x, y), found in zip(DEFECTS, compute_maps(scorer, queries), strict=True):
        assert found.shape == (640, 1400)  # twice the image, as the tiles
        top, left = np.unravel_index(np.argmax(found), found.shape)
        assert np.hypot(left / 2 - x, top / 2 - y) < 16
    (alone,) = compute_maps(scorer, queries[1:])
    np.testing.assert_allclose(alone, found, atol=1e-5)


def test_an_image_no_larger_than_a_tile_is_scored_as_without_tiles(tmp_path: Path) -> None:
    images = [_write(tmp_path, i, size=(130, 160)) for i in range(3)]
    whole, tiled = (
        compute_maps(fit(config, images), images)
        for config in (PatchCore(name="patchcore", image_size=128, tile=tile) for tile in (None, TILE))
    )
    for one, other in zip(whole, tiled, strict=True):
        assert one.shape == (96, 128)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("tile", [None, TILE])
def test_what_is_outside_the_region_of_interest_is_not_scored(tmp_path: Path, tile: TileConfig | None) -> None:
    half = PolygonRoi(polygon=((0, 0), (0.5, 0), (0.5, 1), (0, 1)), units="relative")
    region = {"roi": Roi.of_polygon(half)}
    learned = [{**_write(tmp_path, i), **region} for i in range(3)]
    config = PatchCore(name="patchcore", image_size=320, tile=tile, coreset=500, brightness=False)
    scorer = fit(config, learned)
    before, after = compute_maps(scorer, [{**_write(tmp_path, 7), **region}, {**_write(tmp_path, 8), **region}])
    cv2.imwrite(str(tmp_path / "marked.png"), cv2.circle(cv2.imread(str(tmp_path / "7.png")), (630, 150), 40, 0, -1))
    (marked,) = compute_maps(scorer, [{**_write(tmp_path, 7), **region, "uri": str(tmp_path / "marked.png")}])
    middle = before.shape[1] // 2
    for found in (before, after, marked):
        assert (found[:, middle + 1 :] == 0).all()
        assert found[:, : middle - 1].min() > 0
    if tile is None:
        return
    np.testing.assert_allclose(before, marked, atol=1e-5)  # tiles outside are not even looked at
