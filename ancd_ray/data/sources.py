"""Reads image, mask and anomaly map of a row of the table `images`, all in the orientation of the upright image.

Rows of an archive name files. Rows made for inference on images in memory carry `image_bytes`, `mask_bytes` and
`map_bytes` instead, and those that are read several times their decoded `pixels`; no table that is written has these
columns. Rows carry the `pixel_range` and the region of interest (`roi`) of their product, if it has some.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.images import (
    BadImage,
    ImageU8,
    decode_mask,
    decode_rgb,
    is_transposed,
    read_bytes,
    turn_upright,
)
from ancd_ray.data.map_files import decode_map, read_map_file
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import Roi
from ancd_ray.data.roles import is_defect
from ancd_ray.data.shapes import draw_mask

Row = Mapping[str, Any]


def read_image(row: Row) -> bytes:
    """Return the encoded image of a row.

    Raises
    ------
    BadImage
        The file does not exist, cannot be read, is empty, or is not the one of the row's `digest`.
    """
    if row.get("image_bytes") is not None:
        return bytes(row["image_bytes"])
    data = read_bytes(row["uri"])
    if "digest" in row and hashlib.sha256(data).hexdigest() != row["digest"]:
        raise BadImage("changed while the job ran")
    return data


def read_rgb(row: Row) -> ImageU8:
    """Read the pixels (H, W, 3) of a row's image; see `images.decode_rgb`."""
    pixels: ImageU8 | None = row.get("pixels")
    return pixels if pixels is not None else decode_rgb(read_image(row), row.get("pixel_range"))


def has_mask(row: Row) -> bool:
    """Whether a row names a mask."""
    return bool(row["mask_uris"] or row.get("mask_shapes"))


def read_mask(row: Row) -> ImageU8:
    """Read the mask (H, W) of a row, 0 or 255 at image size; the masks of several files are united.

    A mask of the stored image's size is turned like the image; where sizes cannot decide, it was drawn upright. Without
    a mask, an image that is not labeled as a defect has none.

    Raises
    ------
    BadImage
        The mask of a defect is missing or empty; a mask cannot be read, or has another size.
    """
    height, width = row["height"], row["width"]
    is_labeled = is_defect(row["label"])
    if not has_mask(row):
        if is_labeled:
            raise BadImage(f"is labeled {row['label']!r}, but has no mask")
        return np.zeros((height, width), np.uint8)
    united = np.zeros((height, width), np.uint8)
    if row.get("mask_shapes"):
        united |= draw_mask(row["mask_shapes"], height, width)
    for uri in row["mask_uris"] or ():
        try:
            mask = decode_mask(_read(row, "mask_bytes", uri), row.get("mask_threshold"))
            united |= _fit_mask(mask, row)
        except BadImage as error:
            raise BadImage(f"its mask {uri}: {error}") from error
    if is_labeled and not united.any():
        raise BadImage(f"is labeled {row['label']!r}, but its mask is empty")
    return united


def read_map(row: Row) -> NDArray[Any]:
    """Read the anomaly map (h, w) of a row, turned like the image if it has the aspect of the stored one."""
    carried: bytes | None = row.get("map_bytes")
    values = read_map_file(row["map_uri"]) if carried is None else decode_map(carried)
    if _is_transposed(row):
        height, width = values.shape
        upright = abs(height * row["width"] - width * row["height"])
        stored = abs(height * row["height"] - width * row["width"])
        if stored < upright:
            return turn_upright(values, row["orientation"])
    return values


def attach_range(rows: Iterable[Row], pixel_range: PixelRange | None, roi: Roi | None = None) -> list[dict[str, Any]]:
    """Return rows with the pixel range of their product, and its region of interest."""
    return [{**row, "pixel_range": pixel_range, "roi": roi} for row in rows]


def divide_rows(rows: Iterable[Row], n_images: int, n_pixels: int) -> Iterator[list[Row]]:
    """Divide images into groups of at most so many images and pixels, or of a single larger image."""
    group: list[Row] = []
    pixels = 0
    for row in rows:
        size = row["width"] * row["height"]
        if group and (pixels + size > n_pixels or len(group) == n_images):
            yield group
            group, pixels = [], 0
        group.append(row)
        pixels += size
    if group:
        yield group


def _fit_mask(mask: ImageU8, row: Row) -> ImageU8:
    size = (row["height"], row["width"])
    if mask.shape != size and _is_transposed(row) and mask.shape == size[::-1]:
        mask = turn_upright(mask, row["orientation"])
    if mask.shape != size:
        raise BadImage(f"is {mask.shape[1]} x {mask.shape[0]}, the image {size[1]} x {size[0]}")
    return mask


def _is_transposed(row: Row) -> bool:
    return is_transposed(row.get("orientation") or 1)


def _read(row: Row, content: str, uri: str) -> bytes:
    carried: bytes | None = row.get(content)
    return read_bytes(uri) if carried is None else carried
