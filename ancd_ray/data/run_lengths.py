"""Reads masks as run lengths (RLE) in the two forms of COCO: lists of numbers, and compressed strings."""

from __future__ import annotations

from typing import Any

from ancd_ray.data.images import MAX_PIXELS, BadImage


def read_run_lengths(rle: Any) -> tuple[tuple[int, int], list[int]]:
    """Read `{"size": [height, width], "counts": ...}`.

    Raises
    ------
    BadImage
        The lengths are damaged, or do not add up to the number of pixels.

    Returns
    -------
    size : tuple of int
        Height and width.
    counts : list of int
        Lengths of the runs, column by column; the first one is of background.
    """
    if not isinstance(rle, dict) or not _is_size(rle.get("size")):
        raise BadImage("it has no size")
    size, counts = rle["size"], rle.get("counts")
    counts = _decompress(counts) if isinstance(counts, str) else counts
    if not (isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)):
        raise BadImage("its counts are not a list of lengths")
    height, width = size
    if height * width > MAX_PIXELS or sum(counts) != height * width:
        raise BadImage(f"its counts do not add up to {format_size(size)} pixels")
    return (height, width), counts


def format_size(size: Any) -> str:
    """Return width x height of (height, width), for messages about untrusted files."""
    return f"{size[1]} x {size[0]}" if _is_size(size) else "an unknown number of"


def _is_size(size: Any) -> bool:
    return (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(type(side) is int and 0 < side < 10**9 for side in size)
    )


def _decompress(text: str) -> list[int]:
    """Decompress COCO's counts: digits of 5 bits from character 48 on, the lowest first.

    Bit 5 of a digit says that another one follows, bit 4 of the last one is the sign. From the fourth number on, they
    are differences to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > 60:
            raise BadImage("its compressed counts are damaged")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise BadImage("its compressed counts are cut off")
    return counts
