"""Reads the files that a row of the table `images` names, or the bytes that it carries itself.

Rows of an archive name files by URI. Rows made for inference on images in memory carry `image_bytes`, `mask_bytes` and
`map_bytes` instead; no table that is written has these columns.

A job reads an image up to three times, and takes it for the same image each time. Rows of `images` have the sha256 of
the file that the catalog opened; another content is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ancd_ray.data.images import BadImage, read_bytes


def read_image(row: Mapping[str, Any]) -> bytes:
    """Return the encoded image of a row.

    Raises
    ------
    BadImage
        The file does not exist, cannot be read, is empty, or is not the one of the row's `digest`.
    """
    data = _read(row, "image_bytes", "uri")
    if "digest" in row and hashlib.sha256(data).hexdigest() != row["digest"]:
        raise BadImage("changed while the job ran")
    return data


def read_mask(row: Mapping[str, Any]) -> bytes:
    """Return the encoded mask of a row; see `read_image`."""
    return _read(row, "mask_bytes", "mask_uri")


def read_map(row: Mapping[str, Any]) -> bytes:
    """Return the encoded anomaly map of a row; see `read_image`."""
    return _read(row, "map_bytes", "map_uri")


def _read(row: Mapping[str, Any], content: str, uri: str) -> bytes:
    carried: bytes | None = row.get(content)
    return read_bytes(row[uri]) if carried is None else carried
