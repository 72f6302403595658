"""Reads the files that a row of the table `images` names, or the bytes that it carries itself.

Rows of an archive name files by URI. Rows made for inference on images in memory carry `image_bytes`, `mask_bytes` and
`map_bytes` instead; no table that is written has these columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ancd_ray.data.images import read_bytes


def read_image(row: Mapping[str, Any]) -> bytes:
    """Return the encoded image of a row.

    Raises
    ------
    BadImage
        The file does not exist, cannot be read, or is empty.
    """
    return _read(row, "image_bytes", "uri")


def read_mask(row: Mapping[str, Any]) -> bytes:
    """Return the encoded mask of a row; see `read_image`."""
    return _read(row, "mask_bytes", "mask_uri")


def read_map(row: Mapping[str, Any]) -> bytes:
    """Return the encoded anomaly map of a row; see `read_image`."""
    return _read(row, "map_bytes", "map_uri")


def _read(row: Mapping[str, Any], content: str, uri: str) -> bytes:
    carried: bytes | None = row.get(content)
    return read_bytes(row[uri]) if carried is None else carried
