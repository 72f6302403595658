"""Binarization: golden maps, comparison with the definition, and edge cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ancd_ray.method import mebin
from ancd_ray.method.mebin import (
    MebinParams,
    binarize,
    counts_at,
    counts_level_by_level,
    region_counts,
    stable_level,
    thresholds,
)


@pytest.fixture(params=["numba", "opencv"])
def _either_form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with and without the union-find."""
    if request.param == "numba":
        pytest.importorskip("numba")
        assert mebin._union_find() is not None
    else:
        monkeypatch.setattr(mebin, "_union_find", lambda: None)


@pytest.mark.usefixtures("_either_form")
def test_golden(golden_map: tuple[dict[str, Any], dict[str, Any], Path]) -> None:
    set_, case, folder = golden_map
    values = cv2.imread(str(folder / "maps" / case["map"]), cv2.IMREAD_GRAYSCALE)
    found = binarize(values, set_["min_th"], set_["max_th"])
    assert found.counts.tolist() == case["counts"]
    assert (255 if found.threshold is None else found.threshold) == case["threshold"]
    assert found.n_regions == case["est_anomaly_num"]
    assert np.count_nonzero(found.mask) == case["mask_fg_px_map_res"]


@given(arrays(np.uint8, (20, 24)))
def test_one_erosion_gives_the_counts_of_an_erosion_at_every_level(values: np.ndarray) -> None:
    levels = thresholds(0, 255, 16, is_integer=True)
    element = np.ones((3, 3), np.uint8)
    expected = []
    for level in levels:
        eroded = cv2.erode((values > level).astype(np.uint8), element)
        expected.append(cv2.connectedComponents(eroded, connectivity=8)[0] - 1)
    assert region_counts(values, levels, 3).tolist() == expected


_SHAPES = st.tuples(st.integers(1, 19), st.integers(1, 19))


@given(_SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)), st.integers(1, 255), st.integers(0, 200))
def test_one_union_find_counts_what_labelling_every_level_counts(values: np.ndarray, n: int, low: int) -> None:
    levels = thresholds(low, 255, n, is_integer=True)
    assert counts_at(values, levels).tolist() == counts_level_by_level(values, levels).tolist()


@given(_SHAPES.flatmap(lambda shape: arrays(np.int16, shape, elements=st.integers(-9, 9))), st.integers(1, 300))
def test_the_same_for_maps_of_few_values_and_of_negative_ones(values: np.ndarray, n: int) -> None:
    for map_HW in (values, values.astype(np.float32) / 7, (values + 9).astype(np.uint8)):
        levels = thresholds(float(values.min()) - 1, float(values.max()), n, is_integer=map_HW.dtype.kind != "f")
        assert counts_at(map_HW, levels).tolist() == counts_level_by_level(map_HW, levels).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_the_same_for_larger_maps(seed: int) -> None:
    """Return smooth maps, noise, and a spiral, whose single region needs long paths."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (150 + seed, 203 - seed)).astype(np.uint8)
    if seed % 3:
        values = cv2.GaussianBlur(values, (0, 0), float(2 * seed))
        values = cv2.normalize(values, None, 0, 255, cv2.NORM_MINMAX)
    if seed % 3 == 2:
        values[::4, :-1], values[2::4, 1:] = 255, 254
    levels = thresholds(int(rng.integers(0, 60)), 255, is_integer=True)
    assert counts_at(values, levels).tolist() == counts_level_by_level(values, levels).tolist()


@given(arrays(np.uint8, (16, 16)), st.integers(1, 200))
def test_a_float_map_is_binarized_like_its_multiple(values: np.ndarray, scale: int) -> None:
    params = MebinParams(erosion_px=2)
    one = binarize(values.astype(np.float32), 0, 255, params)
    other = binarize(values.astype(np.float32) * scale, 0, 255 * scale, params)
    assert one.n_regions == other.n_regions
    assert np.array_equal(one.mask, other.mask)


def test_levels_are_those_of_the_paper() -> None:
    assert thresholds(0, 255, is_integer=True).tolist() == list(range(255, 0, -4))
    assert thresholds(0.0, 1.0)[0] == 1.0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 0, 0, 0, 0], None),  # runs of zero regions are ignored
        ([1, 1, 1, 0, 2, 2, 2], None),  # no run is long enough
        ([0, 2, 2, 2, 2, 1, 1, 1, 1, 1], 9),
        ([2, 2, 2, 2, 0, 1, 1, 1, 1], 3),  # equally long: the higher level wins
        ([3, 3, 3, 3, 1, 3, 3, 3, 3], 8),  # two runs of one count: the lower one
        ([3, 3, 3, 3, 3, 1, 3, 3, 3, 3], 4),  # shorter runs are ignored
    ],
)
def test_the_longest_run_decides(counts: list[int], expected: int | None) -> None:
    assert stable_level(np.array(counts), 4, "longest_run") == expected


def test_the_papers_rule_takes_the_most_frequent_count() -> None:
    counts = np.array([1] * 6 + [2] * 5 + [3] + [2] * 5)
    assert stable_level(counts, 4, "longest_run") == 5
    assert stable_level(counts, 4, "paper") == 16
    assert stable_level(counts, 6, "paper") is None
    assert stable_level(np.zeros(9, int), 4, "paper") is None


@pytest.mark.parametrize("values", [np.full((8, 8), 3, np.uint8), np.zeros((1, 1), np.float32)])
def test_a_constant_map_has_no_region(values: np.ndarray) -> None:
    found = binarize(values, float(values.max()), float(values.max()))
    assert (found.n_regions, found.threshold) == (0, None)
    assert not found.mask.any()


def test_counts_only_leaves_the_mask_whole() -> None:
    values = np.zeros((40, 40), np.uint8)
    values[10:30, 10:30] = 200
    assert np.count_nonzero(binarize(values, 0, 255, MebinParams(erode="counts_only")).mask) == 400
    assert np.count_nonzero(binarize(values, 0, 255).mask) == 15 * 15


@given(arrays(np.uint8, (8, 12)), st.integers(0, 254))
def test_regions_of_two_maps_side_by_side_add_up(values: np.ndarray, high: int) -> None:
    levels = thresholds(0, high, 16, is_integer=True)
    apart = np.pad(values, ((0, 0), (0, 1)))
    both = np.hstack([apart, values])
    assert (region_counts(both, levels, 1) == 2 * region_counts(values, levels, 1)).all()


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64])
def test_maps_of_any_type_are_binarized_alike(dtype: type) -> None:
    values = np.zeros((40, 40), dtype)
    values[10:30, 10:30] = 1
    values.flags.writeable = False
    found = binarize(values, 0, 1)
    assert found.n_regions == 1
    assert found.mask.dtype == np.uint8
    assert np.count_nonzero(found.mask) == 15 * 15


def test_maps_of_large_and_of_negative_values() -> None:
    values = np.zeros((40, 40), np.float32)
    values[10:30, 10:30] = 1
    assert binarize(values * 1e6 - 5e5, -5e5, 5e5).n_regions == 1
    assert binarize(values * 1e-6, 0, 1e-6).n_regions == 1


@pytest.mark.parametrize(
    ("values", "hi", "message"),
    [
        (np.full((4, 4), np.nan, np.float32), 1, "not finite"),
        (np.full((4, 4), np.inf, np.float16), 1, "not finite"),
        (np.zeros((4, 4, 1)), 1, "two-dimensional"),
        (np.zeros((0, 4)), 1, "two-dimensional"),
        (np.zeros((4, 4)), -1, "range"),
        (np.zeros((4, 4)), np.nan, "range"),
    ],
)
def test_what_is_no_map_is_refused(values: np.ndarray, hi: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binarize(values, 0, hi)
