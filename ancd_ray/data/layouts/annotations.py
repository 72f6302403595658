"""What files of annotation tools have in common: JSON, names, sizes, one label per image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ancd_ray.data.layouts.text import clip, decode_text
from ancd_ray.data.roles import GOOD


class AnnotationError(ValueError):
    """A file of annotations that cannot be read; the message is one line."""


def parse_document(data: bytes, name: str) -> dict[str, Any]:
    """Parse a file that has one JSON object.

    Raises
    ------
    AnnotationError
        It has not.
    """
    try:
        document = json.loads(decode_text(data)[0])
    except json.JSONDecodeError as error:
        raise AnnotationError(f"{name}: row {error.lineno}: is not JSON: {error.msg}") from None
    except RecursionError:
        raise AnnotationError(f"{name}: is nested too deeply") from None
    except ValueError as error:
        raise AnnotationError(f"{name}: {clip(str(error))}") from None
    if not isinstance(document, dict):
        raise AnnotationError(f"{name}: is not a JSON object, but a {type(document).__name__}")
    return document


def read_name(value: Any) -> str | None:
    """Return a name without surrounding blanks; None if it is none, or has characters that no file can have."""
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair
        return None
    return value.strip() or None


def read_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return width and height in pixels; None if they are not two positive integers."""
    return (width, height) if all(type(side) is int and 0 < side < 10**9 for side in (width, height)) else None


def choose_label(areas: Mapping[str, float]) -> str:
    """Return the label with the largest area, the first one of equals, or `good` if there is none."""
    return max(areas, key=lambda label: areas[label], default=GOOD)
