"""Shapes of annotations as text in a column of a table, and as a mask.

The text is JSON: `{"size": [height, width] or null, "shapes": [...]}`. Coordinates are x, y in pixels; pixel (i, j)
covers j ≤ x < j + 1, i ≤ y < i + 1. The mask is the union of the shapes. Each of them is one of

    {"polygon": [[x, y], ...]}            what the outline encloses, and the pixels that the outline touches
    {"rectangle": [x0, y0, x1, y1]}       any two opposite corners
    {"circle": [x, y, radius]}
    {"line": [[x, y], ...], "width": w}   a polyline
    {"rle": {"size": [h, w], "counts": [...] or "..."}}    COCO's run lengths, as numbers or compressed; by columns
    {"bitmap": {"x": x, "y": y, "png": "..."}}             a mask in base64, and its upper left pixel
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.images import MAX_PIXELS, BadImage, ImageU8, decode_mask, image_size
from ancd_ray.data.run_lengths import format_size, read_run_lengths

Shape = dict[str, Any]
Points = NDArray[np.float64]

_MAX_COORDINATE = 1_000_000  # no image has a longer side; OpenCV's arithmetic is exact up to here
_MAX_WIDTH = 32_767  # of OpenCV's lines


def encode_shapes(shapes: Sequence[Shape], size: tuple[int, int] | None) -> str:
    """Encode shapes, and the (height, width) of the image that they were drawn on, as text."""
    return json.dumps({"size": size, "shapes": list(shapes)}, separators=(",", ":"))


def draw_mask(text: str, height: int, width: int) -> ImageU8:
    """Draw shapes as a mask (H, W) of 0 and 255.

    Raises
    ------
    BadImage
        The text is no document of shapes, is for an image of another size, or has a shape that cannot be drawn.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise BadImage(f"a mask of {width} x {height} pixels cannot be drawn")
    size, shapes = _parse(text)
    if size is not None and size != [height, width]:
        raise BadImage(f"its shapes were drawn on {format_size(size)} pixels, but the image has {width} x {height}")
    mask = np.zeros((height, width), np.uint8)
    for number, shape in enumerate(shapes, 1):
        kind = _find_kind(shape, number)
        try:
            _DRAW[kind](mask, shape)
        except BadImage as error:
            raise BadImage(f"shape {number}, {kind}: {error}") from None
    return mask


def measure_area(shape: Shape) -> float:
    """Return the area of a shape in pixels, whether it is inside of an image or not.

    Raises
    ------
    BadImage
        The shape cannot be drawn on any image.
    """
    kind = _find_kind(shape, 1)
    try:
        return _MEASURE[kind](shape)
    except BadImage as error:
        raise BadImage(f"{kind}: {error}") from None


def _parse(text: str) -> tuple[Any, list[Any]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadImage("its shapes are not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
        raise BadImage("its shapes are not a document with a list 'shapes'")
    return document.get("size"), document["shapes"]


def _find_kind(shape: Any, number: int) -> str:
    kinds = [kind for kind in _DRAW if kind in shape] if isinstance(shape, dict) else []
    if len(kinds) != 1:
        raise BadImage(f"shape {number} is not one of {', '.join(_DRAW)}")
    return kinds[0]


def _draw_polygon(mask: ImageU8, shape: Shape) -> None:
    points = _read_points(shape["polygon"], 3)
    _require_inside(mask, points.min(axis=0), points.max(axis=0))
    cv2.fillPoly(mask, [_to_pixels(points)], 255)


def _measure_polygon(shape: Shape) -> float:
    x, y = _read_points(shape["polygon"], 3).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _read_rectangle(shape: Shape) -> tuple[Points, Points]:
    corners = _read_numbers(shape["rectangle"], (4,)).reshape(2, 2)
    return corners.min(axis=0), corners.max(axis=0)


def _draw_rectangle(mask: ImageU8, shape: Shape) -> None:
    low, high = _read_rectangle(shape)
    _require_inside(mask, low, high)
    x0, y0 = np.maximum(np.floor(low), 0).astype(int)
    x1, y1 = np.maximum(np.ceil(high), np.floor(low) + 1).astype(int)  # at least a pixel
    mask[y0:y1, x0:x1] = 255


def _measure_rectangle(shape: Shape) -> float:
    low, high = _read_rectangle(shape)
    return float(np.prod(high - low))


def _read_circle(shape: Shape) -> tuple[Points, float]:
    x, y, radius = _read_numbers(shape["circle"], (3,))
    if radius < 0:
        raise BadImage("its radius is negative")
    return np.array([x, y]), float(radius)


def _draw_circle(mask: ImageU8, shape: Shape) -> None:
    center, radius = _read_circle(shape)
    _require_inside(mask, center - radius, center + radius)
    x, y = _to_pixels(center).tolist()
    cv2.circle(mask, (x, y), round(radius), 255, cv2.FILLED)


def _measure_circle(shape: Shape) -> float:
    return math.pi * _read_circle(shape)[1] ** 2


def _read_line(shape: Shape) -> tuple[Points, float]:
    points, width = _read_points(shape["line"], 2), float(_read_numbers(shape.get("width"), ()))
    if not 0 < width <= _MAX_WIDTH:
        raise BadImage(f"its width is not between 0 and {_MAX_WIDTH:,} pixels")
    return points, width


def _draw_line(mask: ImageU8, shape: Shape) -> None:
    points, width = _read_line(shape)
    _require_inside(mask, points.min(axis=0) - width / 2, points.max(axis=0) + width / 2)
    cv2.polylines(mask, [_to_pixels(points)], False, 255, max(1, round(width)))


def _measure_line(shape: Shape) -> float:
    points, width = _read_line(shape)
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum() * width)


def _draw_rle(mask: ImageU8, shape: Shape) -> None:
    size, counts = read_run_lengths(shape["rle"])
    if size != mask.shape:
        raise BadImage(f"its size is {format_size(size)}, but the image has {format_size(mask.shape)}")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    mask[values.reshape(mask.shape[::-1]).T] = 255


def _measure_rle(shape: Shape) -> float:
    return float(sum(read_run_lengths(shape["rle"])[1][1::2]))


def _draw_bitmap(mask: ImageU8, shape: Shape) -> None:
    height, width = mask.shape
    (x, y), data = _read_bitmap(shape)
    columns, rows = image_size(data)
    if columns > width or rows > height:  # before it is decoded
        raise BadImage(f"its {columns} x {rows} pixels are more than the image has")
    _require_inside(mask, np.array([x, y]), np.array([x + columns - 1, y + rows - 1]))
    values = decode_mask(data)[max(-y, 0) : height - y, max(-x, 0) : width - x]
    target = mask[max(y, 0) : y + rows, max(x, 0) : x + columns]
    np.maximum(target, values, out=target)


def _measure_bitmap(shape: Shape) -> float:
    return float(np.count_nonzero(decode_mask(_read_bitmap(shape)[1])))


def _read_bitmap(shape: Shape) -> tuple[tuple[int, int], bytes]:
    bitmap = shape["bitmap"] if isinstance(shape["bitmap"], dict) else {}
    x, y = _to_pixels(_read_numbers([bitmap.get("x"), bitmap.get("y")], (2,))).tolist()
    try:
        return (x, y), base64.b64decode(bitmap.get("png", ""))
    except (binascii.Error, TypeError, ValueError):
        raise BadImage("it is not in base64") from None


def _read_points(values: Any, least: int) -> Points:
    points = _read_numbers(values, None)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < least:
        raise BadImage(f"it does not have {least} points x, y")
    return points


def _read_numbers(values: Any, shape: tuple[int, ...] | None) -> Points:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadImage("its coordinates are not numbers") from None
    if shape is not None and numbers.shape != shape:
        raise BadImage(f"it does not have {math.prod(shape)} numbers")
    if not (np.abs(numbers) <= _MAX_COORDINATE).all():  # NaN is not either
        raise BadImage("its coordinates are not finite, or beyond any image")
    return numbers


def _to_pixels(points: Points) -> NDArray[np.int32]:
    return np.floor(points).astype(np.int32)


def _require_inside(mask: ImageU8, low: Points, high: Points) -> None:
    if (high < 0).any() or (low >= mask.shape[::-1]).any():
        raise BadImage("it lies outside of the image")


_DRAW: dict[str, Callable[[ImageU8, Shape], None]] = {
    "polygon": _draw_polygon,
    "rectangle": _draw_rectangle,
    "circle": _draw_circle,
    "line": _draw_line,
    "rle": _draw_rle,
    "bitmap": _draw_bitmap,
}
_MEASURE: dict[str, Callable[[Shape], float]] = {
    "polygon": _measure_polygon,
    "rectangle": _measure_rectangle,
    "circle": _measure_circle,
    "line": _measure_line,
    "rle": _measure_rle,
    "bitmap": _measure_bitmap,
}
