"""Regions of interest: polygons and masks at any resolution, in windows, and what is found by `auto`."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ancd_ray.data.images import BadImage
from ancd_ray.data.roi import PolygonRoi, Roi, Window, apply_roi, find_foreground, mark_foreground

TRIANGLE = ((0.1, 0.2), (0.9, 0.3), (0.4, 0.8))


def _draw_mask() -> Roi:
    mask = np.zeros((300, 400), np.uint8)
    cv2.fillPoly(mask, [(np.array(TRIANGLE) * [400, 300]).astype(np.int32)], 255)
    return Roi.of_mask(mask)


REGIONS = [
    Roi.of_polygon(PolygonRoi(polygon=TRIANGLE, units="relative")),
    Roi.of_polygon(PolygonRoi(polygon=tuple((x * 400, y * 300) for x, y in TRIANGLE), units="pixels")),
    _draw_mask(),
]


@pytest.mark.parametrize("roi", REGIONS)
def test_a_region_is_the_same_at_any_resolution(roi: Roi) -> None:
    roi = Roi.read(roi.write())
    whole = roi.draw((300, 400), (300, 400))
    assert whole.mean() == pytest.approx(0.225, abs=0.006)  # the area of the triangle
    small = roi.draw((300, 400), (75, 100))
    assert np.mean(small != whole[2::4, 2::4]) < 0.02
    window = roi.draw((300, 400), (100, 120), Window(50, 60, 170, 160))
    assert np.mean(window != whole[60:160, 50:170]) < 0.02
    left, top, right, bottom = roi.find_box((300, 400)) or (0, 0, 0, 0)
    assert np.abs(np.array([left, top, right, bottom]) - [40, 60, 360, 240]).max() <= 2


def test_a_region_in_pixels_may_be_outside_of_an_image() -> None:
    far = Roi(((500, 500), (600, 500), (600, 600)), "pixels")
    assert far.find_box((400, 400)) is None
    with pytest.raises(BadImage, match="outside the image"):
        apply_roi(np.ones((40, 40), np.float32), far, (400, 400))
    assert far.find_box((700, 700)) is not None


def test_another_aspect_is_told() -> None:
    assert REGIONS[2].describe_aspect([(300, 400), (600, 800)]) is None
    assert "stretched" in str(REGIONS[2].describe_aspect([(300, 400), (400, 400)]))


def test_outside_is_lowest() -> None:
    for low in (0.0, -3.0):
        values = np.random.default_rng(0).uniform(low, 1, (30, 40)).astype(np.float32)
        applied = apply_roi(values, REGIONS[0], (300, 400))
        inside = REGIONS[0].draw((300, 400), (30, 40))
        assert (applied[~inside] == min(values.min(), 0)).all()
        np.testing.assert_array_equal(applied[inside], values[inside])


def test_the_foreground_that_images_share_is_found() -> None:
    """A part on a background, whatever its color; small dirt beside it, and textures, have none."""
    rng = np.random.default_rng(0)
    marked = []
    for i in range(6):
        image = rng.normal(200, 4, (240, 320, 3))
        cv2.circle(image, (160 + i, 120 - i), 70, (60, 80, 100), -1)
        cv2.circle(image, (160, 120), 20, (200, 200, 200), -1)  # a hole
        cv2.circle(image, (20 + 40 * i, 20), 10, (0, 0, 0), -1)
        marked.append(mark_foreground(np.clip(image, 0, 255).astype(np.uint8)))
    found = find_foreground(marked)
    assert found is not None
    inside = found.draw((240, 320), (240, 320))
    expected = cv2.circle(np.zeros((240, 320), np.uint8), (162, 118), 70, 1, -1) > 0
    assert (inside & expected).sum() / (inside | expected).sum() > 0.9
    assert find_foreground([]) is None
    textures = [mark_foreground(rng.integers(0, 255, (240, 320, 3)).astype(np.uint8)) for _ in range(6)]
    region = find_foreground(textures)
    assert region is None or region.draw((240, 320), (240, 320)).mean() > 0.5
