"""Pictures of regions: what is shown, how large, and the outline of the mask."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from sample_report import png, region

from ancd_ray.jobs.report import ClassReport, GalleryItem, ProductReport, thumbnail
from ancd_ray.jobs.report.gallery import LEVELS, Gallery, fitting

GREY = np.full((256, 256, 3), 128, np.uint8)


def decoded(picture: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).astype(int)


def greenish(picture: bytes) -> np.ndarray:
    image = decoded(picture)
    return image[..., 1] - image[..., 0] > 60


def test_the_outline_runs_around_the_mask_and_leaves_it_visible() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[96:160, 96:160] = 255
    green = greenish(thumbnail(png(GREY), png(mask), 128))
    rows, columns = np.nonzero(green)
    assert 40 <= rows.min() <= 48
    assert 79 <= rows.max() <= 87
    assert 40 <= columns.min() <= 48
    assert not green[52:76, 52:76].any()


def test_a_hairline_defect_keeps_its_outline() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[100, 40:200] = 255
    assert greenish(thumbnail(png(GREY), png(mask), 80)).sum() > 40


def test_an_empty_mask_has_no_outline() -> None:
    plain = decoded(thumbnail(png(GREY), png(np.zeros((256, 256), np.uint8)), 112))
    assert plain.shape == (112, 112, 3)
    assert np.abs(plain - 128).max() <= 3


@pytest.mark.parametrize(("image", "mask", "named"), [(b"", png(GREY), "image"), (png(GREY), b"\x89PNG", "mask")])
def test_broken_bytes_are_named(image: bytes, mask: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=f"the {named} of a region"):
        thumbnail(image, mask)


def items(*confidences: float) -> list[GalleryItem]:
    base = region("hole", 0, 0.0)
    return [replace(base, confidence=c) for c in confidences]


def test_no_region_is_shown_twice_and_none_is_passed_over() -> None:
    cls = ClassReport(0, "a", "tile-c0000", 6, 6, most_certain=items(0.9, 0.8, 0.7, 0.6, 0.5), least_certain=items(0.1))
    most, least = Gallery(112, 2, 3).pick(cls)
    assert [item.confidence for item in most] == [0.9, 0.8]
    assert [item.confidence for item in least] == [0.1, 0.5, 0.6]


def test_the_richest_gallery_that_fits_is_taken(tile: ProductReport) -> None:
    assert fitting([tile]) == LEVELS[0]
    size = sum(len(LEVELS[2].data_uri(item)) for cls in tile.classes for part in LEVELS[2].pick(cls) for item in part)
    assert fitting([tile], budget=round(size * 1.15)) == LEVELS[2]
    assert fitting([tile], budget=0) == LEVELS[-1]
    assert fitting([], budget=0) == LEVELS[0]
