"""Looks into a few images of a product, so that `plan` tells how they will be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from ancd_ray.data.images import BadImage, decode_mask, measure_extremes, read_bytes, read_header
from ancd_ray.data.layouts.base import ProductConfig
from ancd_ray.data.listed import ListedImages
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import PolygonRoi, Roi
from ancd_ray.data.roles import ListedImage

LOOKED_AT = 12


_MIDDLE = 127  # of 8-bit masks
_SOFT = 1.05, 2.0  # range of the ratio of the areas above 0 and above the middle that soft edges explain


def peek(images: Sequence[ListedImage], product: ProductConfig) -> list[str]:
    """Return notes about the orientation, depth and readability of a sample of images, soft masks, and a lost region.

    Parameters
    ----------
    images
        Images of a product.
    product
        Its keys in the job file: a declared depth of images or threshold of masks is not told again.
    """
    listed = ListedImages.collect(images)
    usable = pc.indices_nonzero(listed.column("problem").is_null()).to_numpy()
    sample = [listed[int(i)] for i in usable[:: max(1, -(-len(usable) // LOOKED_AT))]]
    tags: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    extremes = []
    sizes: set[tuple[int, int]] = set()
    for image in sample:
        try:
            data = read_bytes(image.uri)
            header = read_header(data)
            tags[header.orientation] += 1
            sizes.add((header.height, header.width))
            if header.is_deep:
                extremes.append(measure_extremes(data))
        except BadImage as error:
            reasons[str(error)] += 1
    notes = [f"{n} of {len(sample)} images looked at cannot be read: {reason}" for reason, n in reasons.items()]
    turned = sum(n for tag, n in tags.items() if tag != 1)
    if turned:
        shown = ", ".join(str(tag) for tag in sorted(tags) if tag != 1)
        notes.append(
            f"{turned} of {len(sample)} images looked at have an EXIF orientation ({shown}): they are turned upright; "
            "masks and maps of the stored size are turned with them, others are taken as drawn upright"
        )
    if extremes:
        notes.append(_describe_depth(PixelRange.of(extremes, product.bits), product.bits, len(extremes), len(sample)))
    if isinstance(product.roi, PolygonRoi) and sizes and not any(map(Roi.of_polygon(product.roi).find_box, sizes)):
        height, width = max(sizes)
        notes.append(f"`roi:` is outside of every image looked at ({width} x {height}); the job will end with that")
    if product.mask_threshold is None:
        notes += _look_at_masks([mask for image in sample for mask in image.mask_uris])
    return notes


def _look_at_masks(masks: Sequence[str]) -> list[str]:
    """Return a note if masks have soft edges, whose foreground depends on a threshold."""
    soft = 0
    for mask in masks:
        try:
            data = read_bytes(mask)
            outer, inner = (int(np.count_nonzero(decode_mask(data, level))) for level in (None, _MIDDLE))
        except BadImage:
            continue  # told when it is needed
        soft += int(_SOFT[0] * inner < outer < _SOFT[1] * inner)
    if not soft:
        return []
    return [
        f"{soft} of {len(masks)} masks looked at have soft edges: foreground is what is above 0; `mask_threshold: "
        f"{_MIDDLE}` of the product takes the middle of the edges"
    ]


def _describe_depth(found: PixelRange, bits: int | None, deep: int, looked_at: int) -> str:
    if found.bits is None:
        return f"{deep} of {looked_at} images looked at have floats: scaled by the range of all images of the product"
    if bits is not None:
        return f"{deep} of {looked_at} images looked at have more than 8 bits: read as {bits} bits, as declared"
    return (
        f"{deep} of {looked_at} images looked at have more than 8 bits, with values of {found.bits} bits; the depth is "
        "measured over all images of the product, or declared by `bits:`"
    )
