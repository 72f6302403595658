"""Parses a file of LabelMe: one JSON file per image, with its shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ancd_ray.data.images import BadImage
from ancd_ray.data.layouts.annotations import AnnotationError, choose_label, parse_document, read_name, read_size
from ancd_ray.data.roles import GOOD
from ancd_ray.data.shapes import Shape, encode_shapes, measure_area

# as LabelMe itself draws them in masks
_LINE_WIDTH = 10
_POINT_RADIUS = 5


@dataclass(frozen=True)
class LabelmeFile:
    """The annotations of an image; `size` is (width, height), and `shapes` is text for `draw_mask`, or None.

    Without shapes, `label` is the flags that are set, joined by `+`, or `good`.
    """

    image_path: str
    size: tuple[int, int] | None
    label: str
    shapes: str | None
    notes: list[str]


def parse_labelme(data: bytes, name: str) -> LabelmeFile:
    """Parse a file; the label of its image is the one whose shapes have the largest area.

    Raises
    ------
    AnnotationError
        The file is not LabelMe's, or has a shape that cannot be drawn.
    """
    document = parse_document(data, name)  # has the image itself, too, which is not kept
    image_path, items = read_name(document.get("imagePath")), document.get("shapes")
    if image_path is None or not isinstance(items, list):
        missing = "list 'shapes'" if image_path else "'imagePath'"
        raise AnnotationError(f"{name}: has no {missing}; save it with LabelMe")
    size = read_size(document.get("imageWidth"), document.get("imageHeight"))
    areas: dict[str, float] = {}
    shapes: list[Shape] = []
    for number, item in enumerate(items, 1):
        try:
            label, shape = _read_shape(item)
            areas[label] = areas.get(label, 0.0) + measure_area(shape)
        except BadImage as error:
            raise AnnotationError(f"{name}: shape {number}: {error}") from None
        shapes.append(shape)
    if not shapes:
        return LabelmeFile(image_path, size, _join_flags(document.get("flags")), None, [])
    label = choose_label(areas)
    notes = [f"has several labels; {label!r} has the largest area"] if len(areas) > 1 else []
    return LabelmeFile(image_path, size, label, encode_shapes(shapes, size and size[::-1]), notes)


def _read_shape(item: Any) -> tuple[str, Shape]:
    if not isinstance(item, dict):
        raise BadImage("is not an object")
    label = read_name(item.get("label"))
    if label is None:
        raise BadImage("has no label")
    kind = item.get("shape_type") or "polygon"  # old versions had no other
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadImage(f"has a type that is none of {', '.join(_KINDS)}")
    points = item.get("points")
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise BadImage("has no points x, y")
    return label, _KINDS[kind](points, item)


def _is_point(value: Any) -> bool:
    """Whether a value is two numbers that no arithmetic can overflow."""
    numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(x, int | float) for x in value)
    return numbers and all(abs(x) < 1e9 for x in value)


def _take(points: list[Any], count: int) -> list[Any]:
    if len(points) != count:
        raise BadImage(f"has {len(points)} points instead of {count}")
    return points


def _read_polygon(points: list[Any], _: Any) -> Shape:
    return {"polygon": points}


def _read_rectangle(points: list[Any], _: Any) -> Shape:
    if len(points) == 4:  # all corners, as some versions write them
        return {"polygon": points}
    (x0, y0), (x1, y1) = _take(points, 2)
    return {"rectangle": [x0, y0, x1, y1]}


def _read_circle(points: list[Any], _: Any) -> Shape:
    (x, y), rim = _take(points, 2)
    return {"circle": [x, y, math.dist((x, y), rim)]}


def _read_line(points: list[Any], _: Any) -> Shape:
    return {"line": points, "width": _LINE_WIDTH}


def _read_point(points: list[Any], _: Any) -> Shape:
    ((x, y),) = _take(points, 1)
    return {"circle": [x, y, _POINT_RADIUS]}


def _read_mask(points: list[Any], item: dict[str, Any]) -> Shape:
    (x, y), _ = _take(points, 2)
    return {"bitmap": {"x": x, "y": y, "png": item.get("mask")}}


_KINDS: dict[str, Callable[[list[Any], dict[str, Any]], Shape]] = {
    "polygon": _read_polygon,
    "rectangle": _read_rectangle,
    "oriented_rectangle": _read_polygon,
    "rotation": _read_polygon,  # the same, of X-AnyLabeling
    "circle": _read_circle,
    "line": _read_line,
    "linestrip": _read_line,
    "point": _read_point,
    "mask": _read_mask,
}


def _join_flags(flags: Any) -> str:
    """Join the names of the flags of an image that are set."""
    names = sorted(key for key, value in flags.items() if value is True) if isinstance(flags, dict) else []
    return "+".join(filter(None, map(read_name, names))) or GOOD
