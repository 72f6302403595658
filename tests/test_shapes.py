"""Shapes of annotations as masks: what is drawn, and what is refused in one line."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ancd_ray.data.images import BadImage, encode_png
from ancd_ray.data.shapes import draw_mask, encode_shapes, measure_area

# of the disc below, as pycocotools compresses it
DISC = "m;9j04M2N2N2O0O2O0000000000000001N101N2N2N3LUi0"


def _draw(*shapes: Any, height: int = 40, width: int = 60) -> NDArray[np.bool_]:
    mask = draw_mask(encode_shapes(shapes, (height, width)), height, width)
    assert mask.shape == (height, width)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}
    return mask > 0


def _disc() -> NDArray[np.bool_]:
    y, x = np.mgrid[:37, :53]
    return (y - 15) ** 2 + (x - 20) ** 2 < 120


def _png(mask: NDArray[Any]) -> str:
    return base64.b64encode(encode_png(mask.astype(np.uint8))).decode()


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    flat = np.concatenate([[False], mask.T.ravel(), [True]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], ends])).tolist()
    return [*runs, mask.size - sum(runs)] if sum(runs) < mask.size else runs


def test_polygons_are_a_union_with_their_outlines() -> None:
    square, inner = [[10, 5], [20, 5], [20, 15], [10, 15]], [[12, 8], [18, 8], [18, 12], [12, 12]]
    mask = _draw({"polygon": square}, {"polygon": inner}, {"polygon": [[50, 30], [70, 30], [70, 50]]})
    assert mask[5:16, 10:21].all()
    assert mask.sum() > 121, "and the part of the triangle that is inside of the image"
    assert not mask[:30, 21:].any()
    assert _draw({"polygon": [[0, 0], [59.9, 39.9], [59.9, 39.9]]}).any(axis=0).all(), "a thin scratch is not lost"


def test_rectangles_cover_the_pixels_between_their_corners() -> None:
    mask = _draw({"rectangle": [20, 15, 10, 5]})
    assert mask.sum() == 100
    assert mask[5:15, 10:20].all()
    assert _draw({"rectangle": [3.5, 3.5, 3.5, 3.5]}).sum() == 1
    assert _draw({"rectangle": [-5, -5, 2.2, 1]}).sum() == 3


def test_circles_and_lines() -> None:
    assert _draw({"circle": [30.5, 20.5, 10]}).sum() == pytest.approx(np.pi * 10**2, rel=0.05)
    assert _draw({"line": [[5, 20], [55, 20]], "width": 5})[18:23, 5:56].all()
    assert _draw({"line": [[5, 5], [5, 35], [50, 35]], "width": 0.1}).sum() == 30 + 46


def test_run_lengths_are_by_columns() -> None:
    disc = _disc()
    for counts in (_runs(disc), DISC):
        shape = {"rle": {"size": [37, 53], "counts": counts}}
        assert np.array_equal(_draw(shape, height=37, width=53), disc)
        assert measure_area(shape) == disc.sum()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (7, 3), (-10, -8), (20, 11)])
@pytest.mark.parametrize("top", [1, 255])
def test_bitmaps_are_cut_at_the_image(x: int, y: int, top: int) -> None:
    disc = _disc()
    expected = np.zeros((80, 120), bool)
    expected[20 + y : 57 + y, 20 + x : 73 + x] = disc
    mask = _draw({"bitmap": {"x": x, "y": y, "png": _png(disc * top)}})
    assert np.array_equal(mask, expected[20:60, 20:80])


def test_areas() -> None:
    assert measure_area({"polygon": [[0, 0], [4, 0], [4, 3]]}) == 6
    assert measure_area({"rectangle": [4, 3, 0, 0]}) == 12
    assert measure_area({"circle": [900, 900, 2]}) == pytest.approx(4 * np.pi)
    assert measure_area({"line": [[0, 0], [3, 4], [3, 10]], "width": 2}) == 22
    assert measure_area({"bitmap": {"x": 0, "y": 0, "png": _png(_disc())}}) == _disc().sum()


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"polygon": [[1, 1], [2, 2]]}, "3 points"),
        ({"polygon": [1, 2, 3, 4, 5, 6]}, "3 points"),
        ({"polygon": [[1, 1], [2, 2], [float("nan"), 3]]}, "finite"),
        ({"polygon": [[1, 1], [2, 2], [1e300, 3]]}, "finite"),
        ({"polygon": [[1, 1], [2, 2], [10**400, 3]]}, "not numbers"),
        ({"polygon": [[1, 1], [2, "x"], [3, 3]]}, "not numbers"),
        ({"polygon": [[60, 1], [70, 1], [70, 9]]}, "outside"),
        ({"rectangle": [1, 2, 3]}, "4 numbers"),
        ({"rectangle": [-9, 1, -2, 3]}, "outside"),
        ({"circle": [1, 1, -1]}, "negative"),
        ({"line": [[1, 1]], "width": 3}, "2 points"),
        ({"line": [[1, 1], [2, 2]]}, "finite"),
        ({"line": [[1, 1], [2, 2]], "width": 10**5}, "width"),
        ({"rle": {"counts": [2400]}}, "no size"),
        ({"rle": {"size": [40, 60], "counts": [2399]}}, "add up to 60 x 40"),
        ({"rle": {"size": [40, 60], "counts": [2401, -1]}}, "list of lengths"),
        ({"rle": {"size": [40, 60], "counts": [2400.0]}}, "list of lengths"),
        ({"rle": {"size": [60, 40], "counts": [2400]}}, "its size is 40 x 60, but the image has 60 x 40"),
        ({"rle": {"size": [10**8, 10**8], "counts": [10**16]}}, "add up"),
        ({"rle": {"size": [40, 60], "counts": "é"}}, "damaged"),
        ({"rle": {"size": [40, 60], "counts": "o" * 50}}, "damaged"),
        ({"rle": {"size": [40, 60], "counts": "o"}}, "cut off"),
        ({"bitmap": {"x": 1, "y": 1, "png": "AAAA"}}, "known format"),
        ({"bitmap": {"x": 1, "y": 1, "png": None}}, "base64"),
        ({"bitmap": {"x": 1, "y": 1, "png": _png(np.ones((41, 1)))}}, "more than the image"),
        ({"bitmap": {"x": 99, "y": 1, "png": _png(np.ones((4, 4)))}}, "outside"),
        ({"ellipse": [1, 2, 3, 4]}, "not one of polygon"),
        ([], "not one of polygon"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(shape: Any, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as error:
        _draw({"rectangle": [1, 1, 5, 5]}, shape)
    assert "shape 2" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_document_for_another_image_is_refused() -> None:
    text = encode_shapes([{"rectangle": [1, 1, 5, 5]}], (40, 60))
    with pytest.raises(BadImage, match="drawn on 60 x 40 pixels, but the image has 40 x 60"):
        draw_mask(text, 60, 40)
    assert draw_mask(text.replace("[40,60]", "null"), 9, 9).sum() == 16 * 255
    for wrong in ("", "[]", "{}", "[" * 100_000, '{"size": null, "shapes": 3}', '{"size": ["a\\n", 1], "shapes": []}'):
        with pytest.raises(BadImage) as error:
            draw_mask(wrong, 9, 9)
        assert len(str(error.value).splitlines()) == 1
    for size in ((0, 5), (5, -1), (100_000, 100_000)):
        with pytest.raises(BadImage, match="cannot be drawn"):
            draw_mask(text, *size)


NUMBER = st.one_of(st.integers(-5, 70), st.floats(), st.integers(), st.none(), st.text(max_size=2))
KIND = st.sampled_from(
    ["polygon", "rectangle", "circle", "line", "width", "rle", "bitmap", "size", "counts", "x", "y", "png"]
)
ANYTHING = st.recursive(
    st.one_of(NUMBER, st.text("0o1@PQ", max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KIND, inner, max_size=3)),
    max_leaves=12,
)
POINTS = st.lists(st.tuples(NUMBER, NUMBER), max_size=5)
LIKELY = st.one_of(
    st.fixed_dictionaries({"polygon": POINTS}),
    st.fixed_dictionaries({"line": POINTS, "width": NUMBER}),
    st.fixed_dictionaries({"rectangle": st.lists(NUMBER, min_size=4, max_size=4)}),
    st.fixed_dictionaries({"circle": st.lists(NUMBER, min_size=3, max_size=3)}),
    st.builds(lambda counts: {"rle": {"size": [3, 4], "counts": counts}}, st.one_of(st.text(), st.lists(NUMBER))),
    st.builds(
        lambda x, y, data: {"bitmap": {"x": x, "y": y, "png": base64.b64encode(data).decode()}},
        *(NUMBER, NUMBER, st.binary(max_size=9).map(lambda tail: encode_png(np.ones((3, 2), np.uint8))[:-9] + tail)),
    ),
)


@settings(max_examples=200)
@given(st.lists(st.one_of(LIKELY, ANYTHING), min_size=1, max_size=3), ANYTHING)
def test_nothing_but_its_error_comes_out(shapes: list[Any], size: Any) -> None:
    for document in ({"size": None, "shapes": shapes}, {"size": size, "shapes": shapes}):
        try:
            assert draw_mask(json.dumps(document), 3, 4).shape == (3, 4)
        except BadImage as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
    for shape in shapes:
        try:
            assert measure_area(shape) >= 0
        except BadImage as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017


@settings(max_examples=100)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_run_lengths_give_back_any_mask(height: int, width: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(values).reshape(height, width)
    shape = {"rle": {"size": [height, width], "counts": _runs(mask)}}
    assert np.array_equal(_draw(shape, height=height, width=width), mask)
