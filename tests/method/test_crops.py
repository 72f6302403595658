"""Squares around regions: golden boxes, and properties at image borders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ancd_ray.method.crops import (
    Box,
    CropParams,
    crop,
    limit_side,
    mask_boxes,
    mask_to_image_size,
    raw_region_score,
    region_boxes,
    region_score,
    square,
)
from ancd_ray.method.mebin import binarize


def test_golden(golden_map: tuple[dict[str, Any], dict[str, Any], Path]) -> None:
    set_, case, folder = golden_map
    values = cv2.imread(str(folder / "maps" / case["map"]), cv2.IMREAD_GRAYSCALE)
    expected = cv2.imread(str(folder / "masks" / case["mask"]), cv2.IMREAD_GRAYSCALE)
    height, width = case["image_hw"]
    low, high = set_["min_th"], set_["max_th"]
    found = binarize(values, low, high)
    mask = mask_to_image_size(found.mask, height, width)
    assert np.array_equal(mask, expected)
    boxes = region_boxes(mask, found.n_regions, CropParams(relative_to="long"))
    assert [list(box) for box in boxes] == case["boxes_final_pil"]
    assert [np.count_nonzero(crop(mask, box)) for box in boxes] == case["crop_mask_px255"]
    for box, score in zip(boxes, case["score_per_crop"], strict=True):
        if score is not None:  # 0/0 in the released program
            assert raw_region_score(values, box, height, width, low, high) == pytest.approx(score, abs=1e-5)


def test_an_all_white_mask_becomes_empty() -> None:
    assert not mask_to_image_size(np.full((4, 4), 255, np.uint8), 8, 8).any()
    white_at_image_size = np.full((4, 4), 255, np.uint8)
    white_at_image_size[3, 3] = 0
    assert not mask_to_image_size(white_at_image_size, 2, 2).any()


def test_an_empty_mask_gives_the_whole_image() -> None:
    mask = np.zeros((30, 50), np.uint8)
    assert region_boxes(mask, 0) == mask_boxes(mask) == [Box(0, 0, 50, 30)]


def test_ground_truth_keeps_every_element() -> None:
    mask = np.zeros((1000, 1000), np.uint8)
    for x in range(120, 1000, 250):
        for y in range(120, 1000, 250):
            mask[y, x] = 255
    assert len(mask_boxes(mask)) == 16
    assert len(region_boxes(mask, 3)) == 4
    assert len(region_boxes(mask, 3, CropParams(keep="est"))) == 3


@given(st.integers(1, 80), st.integers(1, 80), st.data())
def test_squares_cover_their_element(height: int, width: int, data: st.DataObject) -> None:
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + data.draw(st.integers(1, 80)), x : x + data.draw(st.integers(1, 80))] = 255
    (box,) = mask_boxes(mask)
    assert np.count_nonzero(crop(mask, box)) == np.count_nonzero(mask)
    if (box.x0, box.y0, box.x1, box.y1) != (0, 0, width, height):
        assert box.x1 - box.x0 == box.y1 - box.y0


@given(st.integers(40, 90), st.integers(40, 90), st.data())
def test_squares_lie_in_an_image_that_is_large_enough(height: int, width: int, data: st.DataObject) -> None:
    y, x = data.draw(st.integers(0, height - 9)), data.draw(st.integers(0, width - 9))
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + 9, x : x + data.draw(st.integers(1, 9))] = 255
    (box,) = mask_boxes(mask)
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height


@pytest.mark.parametrize(("size", "box"), [((1, 1), Box(0, 0, 2, 2)), ((20, 60), Box(0, 0, 60, 60))])
def test_a_white_ground_truth_mask_is_one_square(size: tuple[int, int], box: Box) -> None:
    assert mask_boxes(np.full(size, 255, np.uint8)) == [box]


@pytest.mark.parametrize(("apart", "n_squares"), [(21, 1), (22, 2)])
def test_squares_merge_below_the_gap(apart: int, n_squares: int) -> None:
    mask = np.zeros((100, 100), np.uint8)  # single pixels get squares of 20 pixels; a gap of 1 is not below 1 %
    mask[50, [30, 30 + apart - 1]] = 255
    assert len(mask_boxes(mask)) == n_squares
    assert len(mask_boxes(mask, CropParams(merge_gap=0.5))) == 1


def test_a_crop_is_black_beyond_the_border() -> None:
    cut = crop(np.full((4, 4, 3), 9, np.uint8), Box(-2, 1, 3, 6))
    assert cut.shape == (5, 5, 3)
    assert cut[:3, 2:].min() == 9
    assert cut[3:].max() == cut[:, :2].max() == 0


def test_scores_are_clipped_and_defined_without_a_range() -> None:
    values = np.array([[5.0, -3.0]], np.float32)
    assert region_score(values, Box(0, 0, 1, 1), 1, 2, 0, 2) == 1
    assert region_score(values, Box(1, 0, 2, 1), 1, 2, 0, 2) == 0
    assert region_score(values, Box(0, 0, 1, 1), 1, 2, 2, 2) == 0


def test_a_region_score_equals_that_of_the_whole_resized_map() -> None:
    values = np.random.default_rng(0).random((24, 31)).astype(np.float32)
    whole = np.asarray(Image.fromarray(values).resize((100, 80), Image.Resampling.BICUBIC))
    for box in (Box(0, 0, 100, 80), Box(13, 7, 29, 23), Box(-5, 60, 25, 90), Box(99, 79, 100, 80)):
        expected = crop(whole, box).max()
        assert raw_region_score(values, box, 80, 100, 0, 1) == pytest.approx(expected, abs=1e-5)


def test_a_large_image_is_scored_without_resizing() -> None:
    values = np.zeros((10, 10), np.float32)
    values[9, 9] = 1
    assert region_score(values, Box(0, 0, 5000, 5000), 5000, 5000, 0, 1) == 1
    assert region_score(values, Box(0, 0, 5000, 4400), 5000, 5000, 0, 1) == 0


def test_a_very_long_image_becomes_a_small_square() -> None:
    image, mask = np.full((9, 12000, 3), 7, np.uint8), np.zeros((9, 12000), np.uint8)
    mask[4, 6000] = 255
    assert region_boxes(np.zeros_like(mask), 0) == [Box(0, 0, 12000, 9)]
    small, small_mask = limit_side(image, mask, 256)
    assert square(small).shape == (256, 256, 3)
    assert np.count_nonzero(square(small_mask)) == 1, "one pixel of a defect does not vanish"
