"""Parses instances in COCO's format, as CVAT, Label Studio and others export it: images, labels, shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ancd_ray.data.images import BadImage
from ancd_ray.data.layouts.annotations import AnnotationError, choose_label, parse_document, read_name, read_size
from ancd_ray.data.layouts.text import clip
from ancd_ray.data.shapes import Shape, encode_shapes, measure_area


@dataclass(frozen=True)
class CocoImage:
    """An image of the file; `size` is (width, height), and `problem` says why its annotations cannot be used.

    `label` is `good` without annotations. `shapes` is text for `draw_mask`, None without annotations that have shapes.
    """

    file_name: str
    size: tuple[int, int] | None
    label: str
    shapes: str | None
    problem: str | None = None


@dataclass(frozen=True)
class CocoFile:
    """The images of a file in its order, and notes of one line each on what is not as it should be."""

    images: list[CocoImage]
    notes: list[str]


@dataclass(eq=False)
class _Entry:
    file_name: str
    size: tuple[int, int] | None
    areas: dict[str, float] = field(default_factory=dict)
    shapes: list[Shape] = field(default_factory=list)
    problem: str | None = None


def parse_coco(data: bytes, name: str) -> CocoFile:
    """Parse a file of instances; the label of an image is the category whose annotations have the largest area.

    Raises
    ------
    AnnotationError
        The file is not in COCO's format, or annotations cannot be assigned to images.
    """
    document = parse_document(data, name)
    images, annotations = (_get_list(document, key, name) for key in ("images", "annotations"))
    categories = _get_list(document, "categories", name) if "categories" in document else []
    labels = {_read_id(item.get("id")): read_name(item.get("name")) for item in categories}
    entries, notes = _read_images(images, name)
    strays: list[str] = []
    unnamed: list[str] = []
    for number, annotation in enumerate(annotations, 1):
        entry = entries.get(_read_id(annotation.get("image_id")))
        if entry is None:
            strays.append(f"number {number}")
            continue
        category = _read_id(annotation.get("category_id"))
        label = labels.get(category)
        if label is None:
            label = f"category {category}" if category else "unnamed"
            unnamed.append(entry.file_name)
        _add_annotation(entry, annotation, number, label)
    unique = list({entry.file_name: entry for entry in entries.values()}.values())
    several = [entry.file_name for entry in unique if len(entry.areas) > 1]
    without = [entry.file_name for entry in unique if entry.areas and not entry.shapes and not entry.problem]
    notes += [
        *_note("annotations of images that are not listed, left out", strays),
        *_note("annotations whose category has no name", unnamed),
        *_note("images with several categories, labelled by the one with the largest area", several),
        *_note("images with a label, but without shapes", without),
    ]
    return CocoFile([_finish(entry) for entry in unique], notes)


def _get_list(document: dict[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    items = document.get(key)
    if not isinstance(items, list):
        raise AnnotationError(f"{name}: has no list {key!r}; export the annotations as COCO instances")
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise AnnotationError(f"{name}: {key}, number {number}: is not an object; export the file anew")
    return items


def _read_id(value: Any) -> str:
    """Return an id as text, so that 1, 1.0 and "1" are the same; empty if there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return read_name(str(value)) or "" if isinstance(value, str | int) else ""


def _read_images(images: Sequence[dict[str, Any]], name: str) -> tuple[dict[str, _Entry], list[str]]:
    """Read the images by id; entries with the same file name are the same image."""
    by_id: dict[str, _Entry] = {}
    by_name: dict[str, _Entry] = {}
    times: Counter[str] = Counter()
    for number, image in enumerate(images, 1):
        key, file_name = _read_id(image.get("id")), read_name(image.get("file_name"))
        if not key or file_name is None:
            missing = "file_name" if key else "id"
            raise AnnotationError(f"{name}: images, number {number}: has no {missing}; export the file anew")
        size = read_size(image.get("width"), image.get("height"))
        entry = by_name.setdefault(file_name, _Entry(file_name, size))
        if by_id.setdefault(key, entry) is not entry:
            both = f"{clip(by_id[key].file_name)!r} and {clip(file_name)!r}"
            raise AnnotationError(
                f"{name}: {both} have the same id {clip(key)}; export each set into a file of its own"
            )
        if size and entry.size and size != entry.size:
            entry.problem = "it is listed more than once, with different sizes"
        times[file_name] += 1
    repeated = [file_name for file_name, count in times.items() if count > 1]
    return by_id, _note("images that are listed more than once, taken together", repeated)


def _add_annotation(entry: _Entry, annotation: dict[str, Any], number: int, label: str) -> None:
    try:
        shapes = _read_shapes(annotation)
        area = sum(measure_area(shape) for shape in shapes)
    except BadImage as error:
        entry.problem = entry.problem or f"annotation number {number} cannot be used: {error}"
        shapes, area = [], 0.0
    entry.shapes += shapes
    entry.areas[label] = entry.areas.get(label, 0.0) + area


def _read_shapes(annotation: dict[str, Any]) -> list[Shape]:
    """Read the segmentation, a union of polygons or one mask; without it, the box; without both there is no shape."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict) and segmentation:
        return [{"rle": {key: segmentation.get(key) for key in ("size", "counts")}}]
    if isinstance(segmentation, list) and segmentation:
        rings = [segmentation] if _is_ring(segmentation) else segmentation
        return [{"polygon": _pair(ring)} for ring in rings]
    box = annotation.get("bbox")
    if not box:
        return []
    measure_area({"rectangle": box})  # refuses what is not four numbers
    x, y, width, height = map(float, box)
    attributes = annotation.get("attributes")
    angle = attributes.get("rotation") if isinstance(attributes, dict) else None
    if isinstance(angle, int | float) and 0 < abs(angle) <= 360:
        return [{"polygon": _rotate_box(x, y, width, height, math.radians(angle))}]
    return [{"rectangle": [x, y, x + width, y + height]}]


def _is_ring(values: list[Any]) -> bool:
    """Whether values are numbers, or points, and not a list of rings; a ring has at least six numbers."""
    return all(not isinstance(value, list) or len(value) == 2 for value in values)


def _pair(ring: Any) -> Any:
    """Turn x, y, x, y, … into points; what is no list of numbers is left to `measure_area` to refuse."""
    if not isinstance(ring, list) or any(isinstance(value, list) for value in ring):
        return ring
    if len(ring) % 2:
        raise BadImage("a polygon has an odd number of coordinates")
    return [list(point) for point in zip(ring[::2], ring[1::2], strict=True)]


def _rotate_box(x: float, y: float, width: float, height: float, angle: float) -> list[list[float]]:
    """Rotate a box about its center, clockwise: CVAT keeps the angle beside the box as it was before."""
    across = (math.cos(angle) * width / 2, math.sin(angle) * width / 2)
    down = (-math.sin(angle) * height / 2, math.cos(angle) * height / 2)
    center = (x + width / 2, y + height / 2)
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [[center[i] + a * across[i] + b * down[i] for i in (0, 1)] for a, b in corners]


def _finish(entry: _Entry) -> CocoImage:
    shapes = encode_shapes(entry.shapes, entry.size and entry.size[::-1]) if entry.shapes else None
    return CocoImage(entry.file_name, entry.size, choose_label(entry.areas), shapes, entry.problem)


def _note(what: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    return [f"{what}: {len(items)}, such as {clip(items[0])}"]
