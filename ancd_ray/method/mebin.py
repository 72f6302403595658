"""Main element binarization, MEBin (Section III-B): the mask of an anomaly map at a stable threshold.

A map is thresholded at T levels from high to low, and its regions are counted at each. Where the count stays the same
over a run of levels, the regions are main elements rather than noise; the lowest level of that run gives the mask.

Erosion by a flat kernel commutes with thresholding, so the gray map is eroded once instead of a mask at every level.
The counts of all levels are then computed by one union-find (`union_find.py`, with numba), or by T component labelings
within the bounding box of the pixels above the lowest level (OpenCV only, if numba is not installed).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Literal, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

CountRule = Literal["longest_run", "paper"]
_CV2_DTYPES = (np.uint8, np.uint16, np.int16, np.float32, np.float64)  # types supported by cv2.erode


@dataclass(frozen=True)
class MebinParams:
    """Constants of the binarization.

    Parameters
    ----------
    levels
        T, number of thresholds.
    min_run
        τ, minimum length of a run of equal counts that is considered stable.
    erosion_px
        Side of the square erosion kernel, in pixels of the map.
    count_rule
        The number of main elements is the count with the longest stable run (`longest_run`), or the most frequent
        count, as in the text of the paper (`paper`).
    erode
        Whether the final mask is eroded like the masks that are counted (`mask`) or not (`counts_only`).
    """

    levels: int = 64
    min_run: int = 4
    erosion_px: int = 6
    count_rule: CountRule = "longest_run"
    erode: Literal["mask", "counts_only"] = "mask"


@dataclass(frozen=True)
class Binarized:
    """The mask of a map and how it was obtained.

    Parameters
    ----------
    mask
        Mask (h, w), 0 or 255.
    threshold
        The mask is where the (eroded) map exceeds it; None if there is no stable run, and the mask is empty.
    n_regions
        Number of regions at that threshold, 0 without one.
    counts
        Number of regions at each of the T levels, from high to low.
    """

    mask: NDArray[np.uint8]
    threshold: float | None
    n_regions: int
    counts: NDArray[np.int64]


def binarize(map_HW: NDArray[Any], lo: float, hi: float, params: MebinParams = MebinParams()) -> Binarized:
    """Binarize one map of a set.

    Parameters
    ----------
    map_HW
        Anomaly map, integer or float.
    lo
        s_min, the smallest maximum over the maps of the set.
    hi
        s_max, the largest maximum. If it equals `lo`, no map stands out and no region is found.
    params
        Constants of the binarization.

    Raises
    ------
    ValueError
        The map is empty, not two-dimensional or not finite, or `hi` is below `lo`.
    """
    values = _check_map(map_HW)
    if not lo <= hi:
        raise ValueError(f"the range of scores [{lo}, {hi}] is empty")
    if lo == hi:
        return _empty_result(values, np.zeros(params.levels, np.int64))
    levels = thresholds(lo, hi, params.levels, np.issubdtype(map_HW.dtype, np.integer))
    eroded = _erode(values, params.erosion_px)
    counts = counts_at(eroded, levels)
    level = stable_level(counts, params.min_run, params.count_rule)
    if level is None:
        return _empty_result(values, counts)
    threshold = levels[level].item()
    kept = eroded if params.erode == "mask" else values
    return Binarized(_above(kept, threshold) * np.uint8(255), float(threshold), int(counts[level]), counts)


def thresholds(lo: float, hi: float, levels: int = 64, is_integer: bool = False) -> NDArray[Any]:
    """Compute `levels` thresholds over [lo, hi] from high to low, truncated to integers for a map of integers.

    They are at 255, …, 3 of 255 parts of the range: 255, 251, …, 3 for the default 64 levels.
    """
    spread = np.linspace(255, 3, levels) * (hi - lo) / 255 + lo
    return spread.astype(np.int64) if is_integer else spread


def region_counts(map_HW: NDArray[Any], thresholds: NDArray[Any], erosion_px: int) -> NDArray[np.int64]:
    """Count the 8-connected regions of the eroded map above each threshold.

    Pixels outside the map do not erode it.
    """
    return counts_at(_erode(_check_map(map_HW), erosion_px), thresholds)


def counts_at(eroded_HW: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.int64]:
    """Count the 8-connected regions of an eroded map above each threshold, given from high to low."""
    kernel = _union_find()
    if kernel is None or len(thresholds) > 255:
        return counts_level_by_level(eroded_HW, thresholds)
    values_HW, height_of = _heights(eroded_HW, thresholds[::-1])
    height, width = values_HW.shape
    if height % 2 or width % 8:
        values_HW = cv2.copyMakeBorder(values_HW, 0, height % 2, 0, -width % 8, cv2.BORDER_CONSTANT, value=0)
    counts: NDArray[np.int64] = kernel(values_HW, values_HW.view(np.uint64), height_of, len(thresholds))
    return counts


def counts_level_by_level(eroded_HW: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.int64]:
    """Count regions like `counts_at` with OpenCV only, labeling each level separately."""
    levels = thresholds.tolist()
    x, y, width, height = cv2.boundingRect(_above(eroded_HW, min(levels)))
    cut_HW = eroded_HW[y : y + height, x : x + width]  # no region extends beyond the pixels above the lowest level
    top = cut_HW.max() if cut_HW.size else -np.inf
    return np.array([_count(_above(cut_HW, level)) if level < top else 0 for level in levels], np.int64)


def stable_level(counts: NDArray[np.int64], min_run: int, count_rule: CountRule) -> int | None:
    """Find the level that gives the mask: the lowest of the longest stable run, so that anomalies are complete.

    A run is stable if one non-zero count stays for at least `min_run` levels. Of counts with equally long runs the one
    that occurs at a higher level wins; of equally long runs of that count the lowest. The rule `paper` considers only
    runs of the most frequent count.

    Parameters
    ----------
    counts
        Result of `region_counts`, from the highest level to the lowest.
    min_run
        Minimum length of a stable run.
    count_rule
        See `MebinParams`.

    Returns
    -------
    int or None
        Index of the level; None if no run is stable.
    """
    runs = [run for run in _runs(counts) if run.regions]
    if count_rule == "paper" and runs:
        levels_of = np.bincount(counts)
        frequent = max(runs, key=lambda run: levels_of[run.regions]).regions
        runs = [run for run in runs if run.regions == frequent]
    longest = max(runs, key=lambda run: run.length, default=None)
    if longest is None or longest.length < min_run:
        return None
    return max(run.last for run in runs if (run.regions, run.length) == (longest.regions, longest.length))


class _Run(NamedTuple):
    """Consecutive levels with equal counts; `last` is the index of the lowest level."""

    regions: int
    length: int
    last: int


def _runs(counts: NDArray[np.int64]) -> list[_Run]:
    runs, n_levels = [], 0
    for regions, group in groupby(counts.tolist()):
        length = len(list(group))
        n_levels += length
        runs.append(_Run(regions, length, n_levels - 1))
    return runs


@cache
def _union_find() -> Callable[..., NDArray[np.int64]] | None:
    """Return the numba kernel, or None if numba is not installed.

    numba supports new versions of Python with some delay.
    """
    try:
        from ancd_ray.method.union_find import counts_above
    except ImportError:
        return None
    return cast("Callable[..., NDArray[np.int64]]", counts_above)


def _heights(values_HW: NDArray[Any], ascending: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Convert the map to 8 bits, 0 where it exceeds no threshold.

    Returns
    -------
    heights_HW : ndarray
        The map as uint8.
    height_of : ndarray
        Number of thresholds that each of the 256 values exceeds.
    """
    lowest = ascending[0].item()
    if values_HW.dtype == np.uint8 and lowest >= 0:
        kept_HW = cv2.threshold(values_HW, lowest, 0, cv2.THRESH_TOZERO)[1]
        return np.asarray(kept_HW, np.uint8), np.searchsorted(ascending, np.arange(256)).astype(np.uint8)
    if values_HW.dtype.kind == "f":  # as the final mask does, compare in the precision of the map
        ascending = ascending.astype(values_HW.dtype)
    heights_HW = np.zeros(values_HW.shape, np.uint8)
    exceeds_HW = values_HW > lowest
    heights_HW[exceeds_HW] = np.searchsorted(ascending, values_HW[exceeds_HW])
    return heights_HW, np.arange(256, dtype=np.uint8)


def _empty_result(values: NDArray[Any], counts: NDArray[np.int64]) -> Binarized:
    return Binarized(np.zeros(values.shape, np.uint8), None, 0, counts)


def _check_map(map_HW: NDArray[Any]) -> NDArray[Any]:
    """Validate a map and convert it without loss to a type that OpenCV supports."""
    if map_HW.ndim != 2 or not map_HW.size:
        raise ValueError(f"an anomaly map must be two-dimensional and not empty, but has shape {map_HW.shape}")
    if map_HW.dtype.kind == "f" and not np.isfinite(map_HW).all():
        raise ValueError("the anomaly map has values that are not finite")
    if map_HW.dtype in _CV2_DTYPES:
        return map_HW
    return map_HW.astype(np.float32 if map_HW.dtype == np.float16 else np.float64)


def _erode(values: NDArray[Any], erosion_px: int) -> NDArray[Any]:
    eroded: NDArray[Any] = cv2.erode(values, np.ones((erosion_px, erosion_px), np.uint8))
    return eroded


def _above(values: NDArray[Any], threshold: float) -> NDArray[np.uint8]:
    """Compute a mask, 1 where a value exceeds the threshold; a Python number keeps the comparison in the map's type."""
    return (values > threshold).view(np.uint8)


def _count(mask: NDArray[np.uint8]) -> int:
    n_labels: int = cv2.connectedComponents(mask, connectivity=8)[0]
    return n_labels - 1  # minus the background
