"""Files of LabelMe: which shapes are drawn, which label the image has."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancd_ray.data.images import BadImage, encode_png
from ancd_ray.data.layouts.annotations import AnnotationError
from ancd_ray.data.layouts.labelme_file import LabelmeFile, parse_labelme
from ancd_ray.data.shapes import draw_mask


def _labelme(*shapes: Any, **keys: Any) -> LabelmeFile:
    document = {"imagePath": "..\\images\\a.png", "imageWidth": 60, "imageHeight": 40, "shapes": shapes, **keys}
    return parse_labelme(json.dumps(document).encode(), "a.json")


def _shape(kind: str | None, *points: Any, label: Any = "hole", **keys: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, **keys}


PNG = base64.b64encode(encode_png(np.eye(5, dtype=np.uint8))).decode()


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (_shape("polygon", [10, 5], [20, 5], [20, 15], [10, 15]), 121),
        (_shape(None, [10, 5], [20, 5], [20, 15], [10, 15]), 121),
        (_shape("rotation", [10, 5], [20, 5], [20, 15], [10, 15]), 121),
        (_shape("rectangle", [20, 15], [10, 5]), 100),
        (_shape("rectangle", [10, 5], [20, 5], [20, 15], [10, 15]), 121),
        (_shape("circle", [30.5, 20.5], [36.5, 28.5]), 317),
        (_shape("point", [30, 20]), 89),
        (_shape("line", [10, 20], [50, 20]), 510),
        (_shape("linestrip", [10, 20], [50, 20], [50, 20]), 510),
        (_shape("mask", [10, 10], [14, 14], mask=PNG), 5),
    ],
)
def test_labelme_shapes(shape: dict[str, Any], area: int) -> None:
    found = _labelme(shape, imageData="A" * 1000)
    assert (found.image_path, found.size, found.label) == ("..\\images\\a.png", (60, 40), "hole")
    assert found.shapes is not None
    assert np.count_nonzero(draw_mask(found.shapes, 40, 60)) == pytest.approx(area, rel=0.1)


def test_labelme_labels() -> None:
    small, large = _shape("rectangle", [1, 1], [3, 3], label="pit"), _shape("rectangle", [5, 5], [9, 9], label=" dent ")
    assert _labelme(small, large).label == "dent"
    assert _labelme(small, large).notes == ["has several labels; 'dent' has the largest area"]
    assert (_labelme().label, _labelme().shapes) == ("good", None)
    assert _labelme(flags={"crack": True, "burr": True, "ok": False}).label == "burr+crack"


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (3, "shape 2: is not an object"),
        (_shape("polygon", label=None), "has no label"),
        (_shape("spline", [1, 1]), "none of polygon"),
        (_shape("polygon", [1, 1], [2, 2]), "3 points"),
        (_shape("polygon", [1, 1], [2, None], [3, 3]), "no points x, y"),
        (_shape("rectangle", [1, 1]), "1 points instead of 2"),
        (_shape("circle", [1, 1], [10**400, 1]), "no points x, y"),
        (_shape("mask", [1, 1], [2, 2]), "base64"),
        (_shape("mask", [1, 1], [2, 2], mask="AAAA"), "known format"),
    ],
)
def test_a_wrong_shape_of_labelme_is_one_line(shape: Any, reason: str) -> None:
    with pytest.raises(AnnotationError, match=reason) as error:
        _labelme(_shape("rectangle", [1, 1], [3, 3]), shape)
    assert str(error.value).startswith("a.json: shape 2: ")
    assert len(str(error.value).splitlines()) == 1


def test_what_is_not_labelme_is_one_line() -> None:
    with pytest.raises(AnnotationError, match="no list 'shapes'"):
        parse_labelme(b'{"imagePath": "a.png"}', "a.json")
    with pytest.raises(AnnotationError, match="no 'imagePath'"):
        parse_labelme(b'{"shapes": []}', "a.json")


KEYS = st.sampled_from(["label", "ok"])
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(-2, 50), st.integers(), st.floats(), st.text(max_size=3), st.just("1")),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=15,
)
POINTS = st.lists(st.lists(VALUES, min_size=2, max_size=2), max_size=4)
SHAPES = st.fixed_dictionaries(
    {
        "label": st.one_of(st.just("x"), VALUES),
        "shape_type": st.one_of(VALUES, st.sampled_from(["rectangle", "circle", "line", "point", "mask", "polygon"])),
        "points": st.one_of(VALUES, POINTS),
    },
    optional={"mask": st.one_of(VALUES, st.just(PNG))},
)


@settings(max_examples=200)
@given(st.one_of(st.lists(SHAPES, max_size=3), VALUES), VALUES, st.binary(max_size=3))
def test_nothing_but_its_error_comes_out_of_labelme(shapes: Any, flags: Any, tail: bytes) -> None:
    text = json.dumps(
        {"imagePath": "a.png", "shapes": shapes, "flags": flags, "imageWidth": 4, "imageHeight": 3}
    ).encode()
    for data in (text, text[: len(text) // 2] + tail, tail):
        try:
            found = parse_labelme(data, "a.json")
        except AnnotationError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
            continue
        found.label.encode()
        if found.shapes:
            _draw_or_refuse(found.shapes)


def _draw_or_refuse(shapes: str) -> None:
    try:
        assert draw_mask(shapes, 3, 4).shape == (3, 4)
    except BadImage as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
