"""Files in COCO's format, as CVAT and Label Studio export them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancd_ray.data.images import BadImage
from ancd_ray.data.layouts.annotations import AnnotationError
from ancd_ray.data.layouts.coco_file import CocoFile, CocoImage, parse_coco
from ancd_ray.data.shapes import draw_mask

CATEGORIES = [{"id": 1, "name": "hole"}, {"id": 2, "name": "scratch"}]
SQUARE = [10, 5, 20, 5, 20, 15, 10, 15]


def _coco(
    *annotations: dict[str, Any], images: Any = None, categories: Any = CATEGORIES, encoding: str = "utf-8"
) -> CocoFile:
    images = images or [{"id": 7, "file_name": "a.png", "width": 60, "height": 40}]
    defaults = {"image_id": 7, "category_id": 1}
    document = {
        "images": images,
        "annotations": [defaults | annotation for annotation in annotations],
        "categories": categories,
    }
    return parse_coco(json.dumps(document, ensure_ascii=False).encode(encoding), "coco.json")


def _image(*annotations: dict[str, Any]) -> CocoImage:
    (image,) = _coco(*annotations).images
    return image


def _area(shapes: str | None) -> int:
    assert shapes is not None
    return int(np.count_nonzero(draw_mask(shapes, 40, 60)))


def test_coco_labels_sizes_and_shapes() -> None:
    image = _image({"segmentation": [SQUARE]})
    assert (image.file_name, image.size, image.label, image.problem) == ("a.png", (60, 40), "hole", None)
    assert _area(image.shapes) == 11 * 11
    assert _image() == CocoImage("a.png", (60, 40), "good", None)
    assert _area(_image({"segmentation": [SQUARE, [40, 20, 50, 20, 50, 30]]}).shapes) > 121, "rings are a union"
    assert _area(_image({"segmentation": SQUARE}).shapes) == 121, "a ring without the list around it"
    assert _area(_image({"segmentation": [[10, 5], [20, 5], [20, 15], [10, 15]]}).shapes) == 121
    runs = {"size": [40, 60], "counts": [400, 7, 2400 - 407]}
    assert _area(_image({"segmentation": runs, "iscrowd": 1}).shapes) == 7


def test_coco_boxes() -> None:
    for empty in ({}, {"segmentation": []}, {"segmentation": {}}, {"segmentation": None}):
        assert _area(_image({"bbox": [10, 5, 4, 3], **empty}).shapes) == 12
    turned = _image({"bbox": [10, 10, 20, 4], "attributes": {"rotation": 90.0}}).shapes
    assert turned is not None
    rows, columns = np.nonzero(draw_mask(turned, 40, 60))
    assert (np.ptp(rows), np.ptp(columns)) == (pytest.approx(20, abs=1), pytest.approx(4, abs=1))


def test_the_category_with_the_largest_area_is_the_label() -> None:
    found = _coco(
        {"bbox": [1, 1, 5, 5], "category_id": 2},
        {"bbox": [10, 1, 5, 6], "category_id": 1},
        {"bbox": [20, 1, 5, 5], "category_id": "2"},
    )
    assert found.images[0].label == "scratch"
    assert _area(found.images[0].shapes) == 80
    assert found.notes == [
        "images with several categories, labelled by the one with the largest area: 1, such as a.png"
    ]


def test_coco_ids_of_any_kind_and_what_is_missing() -> None:
    images = [{"id": "x1", "file_name": "sub\\a.png"}, {"id": 2.0, "file_name": "é.png", "width": 0, "height": 9}]
    found = _coco(
        {"image_id": "x1", "bbox": [1, 1, 5, 5], "category_id": 9},
        {"image_id": "2", "category_id": None},
        {"image_id": 99, "bbox": [1, 1, 5, 5]},
        images=images,
        encoding="utf-8-sig",
    )
    assert [(image.file_name, image.size, image.label) for image in found.images] == [
        ("sub\\a.png", None, "category 9"),
        ("é.png", None, "unnamed"),
    ]
    assert found.images[1].shapes is None
    assert [note.partition(":")[0] for note in found.notes] == [
        "annotations of images that are not listed, left out",
        "annotations whose category has no name",
        "images with a label, but without shapes",
    ]


def test_an_image_that_is_listed_twice_is_one() -> None:
    images = [{"id": i, "file_name": name, "width": w, "height": 40} for i, name, w in
              [(7, "a.png", 60), (8, "a.png", 60), (7, "a.png", 60), (9, "b.png", 60), (10, "b.png", 61)]]  # fmt: skip
    found = _coco({"bbox": [1, 1, 5, 5]}, {"bbox": [20, 20, 5, 5], "image_id": 8}, images=images)
    assert [image.file_name for image in found.images] == ["a.png", "b.png"]
    assert _area(found.images[0].shapes) == 50
    assert found.images[1].problem == "it is listed more than once, with different sizes"
    assert found.notes == ["images that are listed more than once, taken together: 2, such as a.png"]


@pytest.mark.parametrize(
    "annotation",
    [
        {"segmentation": [SQUARE[:-1]]},
        {"segmentation": [SQUARE[:4]]},
        {"segmentation": [["a", "b", "c", "d", "e", "f"]]},
        {"segmentation": {"size": [40, 60], "counts": [1, 2]}},
        {"segmentation": {"size": [40, 60], "counts": "~"}},
        {"segmentation": {"counts": [2400]}},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, None]},
        {"bbox": "large"},
    ],
)
def test_a_wrong_annotation_is_a_problem_of_its_image(annotation: dict[str, Any]) -> None:
    found = _coco(annotation, {"bbox": [1, 1, 5, 5]}, {"bbox": [1, 1, 5, 5], "image_id": 8}, images=[
        {"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}])  # fmt: skip
    assert str(found.images[0].problem).startswith("annotation number 1 cannot be used: ")
    assert found.images[1].problem is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "row 1: is not JSON"),
        (b'{"images": [],\n "annotations": [}', "row 2: is not JSON"),
        (b"[" * 100_000, "deeply|not JSON"),
        (b"[]", "not a JSON object, but a list"),
        (b"\x81\x00", "not text|not JSON"),
        (b"{}", "no list 'images'"),
        (b'{"images": []}', "no list 'annotations'"),
        (b'{"images": [3], "annotations": []}', "images, number 1: is not an object"),
        (b'{"images": [{"id": 1}], "annotations": []}', "images, number 1: has no file_name"),
        (b'{"images": [{"file_name": "a.png"}], "annotations": []}', "has no id"),
        (b'{"images": [{"id": 1, "file_name": "\\ud800"}], "annotations": []}', "has no file_name"),
        (
            b'{"images": [{"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}], "annotations": []}',
            "'a' and 'b' have the same id 1; export each",
        ),
    ],
)
def test_what_is_not_coco_is_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(AnnotationError, match=reason) as error:
        parse_coco(data, "coco.json")
    assert str(error.value).startswith("coco.json: ")
    assert len(str(error.value).splitlines()) == 1


KEYS = st.sampled_from(["id", "name", "size", "counts", "rotation"])
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(-2, 50), st.integers(), st.floats(), st.text(max_size=3), st.just("1")),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=15,
)
ANNOTATIONS = st.fixed_dictionaries(
    {"image_id": st.integers(0, 2)},
    optional=dict.fromkeys(("category_id", "segmentation", "bbox", "attributes"), VALUES),
)


@settings(max_examples=200)
@given(
    st.lists(
        st.fixed_dictionaries({"id": st.integers(0, 2), "file_name": st.text(max_size=3)}, optional={"width": VALUES})
    ),
    st.one_of(st.lists(ANNOTATIONS, max_size=3), VALUES),
    st.one_of(st.just(CATEGORIES), st.lists(VALUES, max_size=2)),
    st.binary(max_size=3),
)
def test_nothing_but_its_error_comes_out_of_coco(images: Any, annotations: Any, categories: Any, tail: bytes) -> None:
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()
    for data in (text, text[: len(text) // 2] + tail, text + tail):
        try:
            found = parse_coco(data, "coco.json")
        except AnnotationError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
            continue
        assert all(
            len(line.splitlines()) == 1 for line in [*found.notes, *(str(image.problem) for image in found.images)]
        )
        for image in found.images:
            image.label.encode()
            if image.shapes and not image.problem:
                _draw_or_refuse(image.shapes)


def _draw_or_refuse(shapes: str) -> None:
    try:
        assert draw_mask(shapes, 3, 4).shape == (3, 4)
    except BadImage as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
