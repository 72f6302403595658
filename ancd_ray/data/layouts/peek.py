"""Looks into a few images of a product, so that `plan` tells how they will be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ancd_ray.data.images import BadImage, measure_extremes, read_bytes, read_header
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roles import ListedImage

LOOKED_AT = 12


def peek(images: Sequence[ListedImage], bits: int | None) -> list[str]:
    """Return notes about the orientation, depth and readability of a sample of images.

    Parameters
    ----------
    images
        Images of a product.
    bits
        Declared depth, if any.
    """
    usable = [image for image in images if not image.problem]
    sample = usable[:: max(1, -(-len(usable) // LOOKED_AT))]
    tags: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    extremes = []
    for image in sample:
        try:
            data = read_bytes(image.uri)
            header = read_header(data)
            tags[header.orientation] += 1
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
        notes.append(_describe_depth(PixelRange.of(extremes, bits), bits, len(extremes), len(sample)))
    return notes


def _describe_depth(found: PixelRange, bits: int | None, deep: int, looked_at: int) -> str:
    if found.bits is None:
        return f"{deep} of {looked_at} images looked at have floats: scaled by the range of all images of the product"
    if bits is not None:
        return f"{deep} of {looked_at} images looked at have more than 8 bits: read as {bits} bits, as declared"
    return (
        f"{deep} of {looked_at} images looked at have more than 8 bits, with values of {found.bits} bits; the depth is "
        "measured over all images of the product, or declared by `bits:`"
    )
