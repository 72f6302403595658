"""Sub-images around main elements (Section III-B): boxes from a mask, crops and region scores.

Boxes are (left, top, right, bottom) in pixels of the original image, right and bottom exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
MAX_ASPECT = 4  # longer images have squares relative to their short side; at 2 the magnetic tiles (2.7) lost .03 to .2
_RESIZE_UP_TO = 16_000_000  # pixels of a map, or of an image under a box; larger ones are scored without resizing


class Box(NamedTuple):
    """A square box in whole pixels; near a border it may extend beyond the image (padded with black)."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class CropParams:
    """Geometry of the squares around main elements; the defaults are those of the released program."""

    padding: float = 0.1  # side of the square relative to the element's longest side, minus 1
    min_crop: float = 0.1  # minimum half side, as a fraction of a side of the image
    merge_gap: float = 0.01  # squares closer than this fraction of a side are merged
    relative_to: Literal["auto", "short", "long"] = "auto"  # that side; auto: the long one, as in the paper, up to 4:1
    keep: Literal["est+1", "est", "all"] = "est+1"  # number of the largest squares that are kept
    max_enlargement: float | None = None  # largest side of the square relative to the element's; None: no limit
    tile: int | None = None  # side of the tiles in which the image was looked at: fractions refer to at most that

    def side(self, height: int, width: int) -> int:
        """Return the side of the image that fractions refer to; the length of a line scan says nothing of defects."""
        short, long = sorted((height, width))
        is_elongated = long > MAX_ASPECT * short
        side = short if self.relative_to == "short" or (self.relative_to == "auto" and is_elongated) else long
        return side if self.tile is None else min(side, self.tile)


def mask_to_image_size(mask: Mask, height: int, width: int) -> Mask:
    """Resize a mask to image size, as the released program does by writing and reading it.

    The released writer stretches the values to the full range, which turns an all-white mask into an all-black one: no
    element is left, and the whole image becomes one region.

    Returns
    -------
    ndarray
        Mask (height, width), 0 or 255.
    """
    if mask.shape != (height, width):
        mask = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST))
    return np.asarray(cv2.threshold(mask, float(mask.min()), 255, cv2.THRESH_BINARY)[1], np.uint8)


def region_boxes(mask: Mask, n_estimated: int, params: CropParams = CropParams()) -> list[Box]:
    """Place squares around the elements of a mask, the largest first.

    Parameters
    ----------
    mask
        Mask (H, W) at image size, 0 or 255.
    n_estimated
        Number of regions that the binarization found; by default the largest `n_estimated` + 1 squares are kept, see
        `CropParams.keep`.
    params
        Geometry of the squares.

    Returns
    -------
    list of Box
        At least one box; a mask without elements gives the whole image.
    """
    height, width = mask.shape
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [Box(0, 0, width, height)]
    rects = sorted((cv2.boundingRect(contour) for contour in contours), key=lambda r: (r[2] * r[3], *r))
    squares = np.array([_square_around(rect, height, width, params) for rect in rects], float)
    merged = _merge_near(squares, params.merge_gap * params.side(height, width))
    merged = merged[np.argsort(merged[:, 0] - merged[:, 2], kind="stable")]
    n_kept = {"est+1": n_estimated + 1, "est": max(n_estimated, 1), "all": len(merged)}[params.keep]
    return [Box(*(round(edge) for edge in square)) for square in merged[:n_kept].tolist()]


def mask_boxes(mask: Mask, params: CropParams = CropParams()) -> list[Box]:
    """Place squares around all elements of a ground-truth mask; an empty mask gives the whole image.

    The number of regions is not estimated, so no square is dropped; elements close to each other are still merged.
    """
    return region_boxes(mask, 0, replace(params, keep="all"))


def crop(array: NDArray[Any], box: Box) -> NDArray[Any]:
    """Crop a box from an array (H, W) or (H, W, 3); pixels outside the array are 0."""
    height, width = array.shape[:2]
    left, top, right, bottom = _clip_box(box, height, width)
    inside = array[top:bottom, left:right]
    if inside.shape[:2] == (box.y1 - box.y0, box.x1 - box.x0):
        return inside
    # Zeros take no memory until they are written: a square over a 12,000 x 9 strip does not allocate 12,000² pixels.
    result = np.zeros((box.y1 - box.y0, box.x1 - box.x0, *array.shape[2:]), array.dtype)
    result[top - box.y0 : bottom - box.y0, left - box.x0 : right - box.x0] = inside
    return result


def raw_region_score(values: NDArray[Any], box: Box, height: int, width: int, lo: float, hi: float) -> float:
    """Compute the anomaly score of a region before clipping.

    The score is the maximum under the box of the normalized map max((A − lo) / (hi − lo), 0), resized to the image size
    by bicubic interpolation. The kernel is Pillow's, as in the released program (OpenCV's is sharper); it may
    overshoot. Only the part under the box is resized; if it is too large, the maximum is taken over the pixels of the
    map itself.

    Parameters
    ----------
    values
        Anomaly map A, (h, w).
    box
        Box of the region in pixels of the image.
    height, width
        Size of the image in pixels.
    lo, hi
        Range of the scores; the score is 0 if it is empty.
    """
    if hi <= lo:
        return 0.0
    rows, columns = values.shape
    inside = _clip_box(box, height, width)
    x0, x1 = (x * columns / width for x in (inside.x0, inside.x1))
    y0, y1 = (y * rows / height for y in (inside.y0, inside.y1))
    n_pixels = (inside.x1 - inside.x0) * (inside.y1 - inside.y0)
    if (rows, columns) == (height, width) or max(values.size, n_pixels) > _RESIZE_UP_TO:
        under = values[int(y0) : math.ceil(y1), int(x0) : math.ceil(x1)]
        return max((float(under.max()) - lo) / (hi - lo), 0.0)
    normalized = Image.fromarray(np.maximum((values.astype(np.float32) - lo) / (hi - lo), 0, dtype=np.float32))
    size = (inside.x1 - inside.x0, inside.y1 - inside.y0)
    return float(np.asarray(normalized.resize(size, Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))).max())


def region_score(values: NDArray[Any], box: Box, height: int, width: int, lo: float, hi: float) -> float:
    """Compute the anomaly score s of a region, clipped to [0, 1]; see `raw_region_score`."""
    return min(max(raw_region_score(values, box, height, width, lo, hi), 0.0), 1.0)  # resizing may undershoot too


def limit_side(image: NDArray[np.uint8], mask: Mask, side: int) -> tuple[NDArray[np.uint8], Mask]:
    """Downscale image and mask until the long side is at most `side` pixels; smaller ones are returned unchanged.

    A pixel of the small mask is set if it covers any pixel of a defect, so that a hairline scratch does not vanish.
    """
    return _shrink(image, mask, side / max(mask.shape))


def square(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Center an array (H, W) or (H, W, 3) in a black square."""
    height, width = array.shape[:2]
    side = max(height, width)
    if height == width:
        return array
    result = np.zeros((side, side, *array.shape[2:]), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    result[top : top + height, left : left + width] = array
    return result


def _square_around(rect: Sequence[int], height: int, width: int, params: CropParams) -> Box:
    """Place a square around a bounding rectangle (x, y, w, h), shifted into the image as far as it fits."""
    x, y, w, h = rect
    longest = max(height, width)
    smallest = params.min_crop * params.side(height, width)
    if params.max_enlargement is not None:
        smallest = min(smallest, params.max_enlargement * max(w, h) / 2)
    radius = int(max(max(w, h) * (1 + params.padding) / 2, smallest))
    radius = max(min(radius, longest // 2), (max(w, h) + 1) // 2)  # rounding must not cut off the element
    center_x, center_y = x + w // 2, y + h // 2
    left = max(min(center_x - radius, width - 2 * radius), 0)
    top = max(min(center_y - radius, height - 2 * radius), 0)
    return Box(left, top, left + 2 * radius, top + 2 * radius)


def _merge_near(squares_K4: Floats, gap: float) -> Floats:
    """Merge every square with all squares closer than `gap`, and drop groups that are contained in another group.

    The relation is not transitive: of five squares in a row, the middle three each form a group with their two
    neighbors.
    """
    start, stop = squares_K4[:, :2], squares_K4[:, 2:]
    near_KK = np.eye(len(squares_K4), dtype=bool)
    merged = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(squares_K4), 1))
    for i, (left, top, right, bottom) in enumerate(squares_K4):  # i joins all its groups at once: K steps of O(K)
        near_KK[i] |= np.maximum(start - [right, bottom], [left, top] - stop).max(axis=1) < gap
        low = np.minimum(merged[near_KK[i], :2], [left, top])
        high = np.maximum(merged[near_KK[i], 2:], [right, bottom])
        center, half = (low + high) / 2, (high - low).max(axis=1, keepdims=True) / 2  # square again at each step
        merged[near_KK[i]] = np.hstack([center - half, center + half])
    return merged[_maximal_groups(near_KK)]


def _maximal_groups(near_KK: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the groups (rows) that are not contained in another group; of equal groups the first.

    Membership is packed into K² bits, so that masks with many specks fit in memory.
    """
    size_K, bits = near_KK.sum(axis=1), np.packbits(near_KK, axis=1)
    maximal = np.ones(len(near_KK), bool)
    for i, near_K in enumerate(near_KK):
        others = np.flatnonzero(near_K)  # only the group of a member can contain group i
        holds = (bits[others] & bits[i] == bits[i]).all(axis=1)
        maximal[i] = not (holds & ((size_K[others] > size_K[i]) | (others < i))).any()
    return maximal


def _clip_box(box: Box, height: int, width: int) -> Box:
    """Clip a box to the image."""
    return Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, width), min(box.y1, height))


def _shrink(image: NDArray[np.uint8], mask: Mask, scale: float) -> tuple[NDArray[np.uint8], Mask]:
    """Scale image and mask by `scale`; they are returned unchanged if it is at least 1."""
    if scale >= 1:
        return image, mask
    height, width = (max(1, round(length * scale)) for length in mask.shape)
    small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    # In float32: as uint8 the area of a thin defect in a large image would be rounded down to 0.
    share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return small, (share > 0).astype(np.uint8) * np.uint8(255)
