"""Binarization by a single threshold: the baselines of MEBin in Table III, and what normal images do not have."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVELS = 255
_PEAK = 0.9  # share of the highest value of a map from which its pixels are kept in any case
_SMALLEST = 0.1  # regions below this share of the area of the largest are dropped


def threshold_mask(
    map_HW: NDArray[Any], low: float, high: float, rule: Literal["otsu", "fixed"], epsilon: float = 0.5
) -> tuple[NDArray[np.uint8], int]:
    """Threshold an anomaly map and count the regions of the mask.

    Parameters
    ----------
    map_HW
        Anomaly map.
    low
        Score that is mapped to 0, see `detectors.score_range.measure_score_range`.
    high
        Score that is mapped to 1; if it does not exceed `low`, the mask is empty.
    rule
        `otsu`, a threshold per map, or `fixed`, the same for all maps.
    epsilon
        The fixed threshold of the normalized map.

    Returns
    -------
    mask : ndarray
        Mask (H, W), 0 or 255.
    n_regions : int
        Number of its 8-connected regions.

    Raises
    ------
    ValueError
        The map has values that are not finite.
    """
    values_HW = _read_finite(map_HW)
    if high <= low:
        return np.zeros(values_HW.shape, np.uint8), 0
    levels_HW = (np.clip((values_HW - low) / (high - low), 0, 1) * _LEVELS).round().astype(np.uint8)
    flag = cv2.THRESH_BINARY | (cv2.THRESH_OTSU if rule == "otsu" else 0)
    mask_HW = np.asarray(cv2.threshold(levels_HW, epsilon * _LEVELS, 255, flag)[1], np.uint8)
    return mask_HW, int(cv2.connectedComponents(mask_HW, connectivity=8)[0]) - 1


def exceed_normal(map_HW: NDArray[Any], cut: float) -> tuple[NDArray[np.uint8], int]:
    """Mark the pixels of an anomaly map above what normal images have; not in the paper.

    At least the pixels around the peak are marked, and regions of less than a tenth of the area of the largest are not.

    Parameters
    ----------
    map_HW
        Anomaly map.
    cut
        A high quantile of the pixels of normal images.

    Returns
    -------
    mask : ndarray
        Mask (H, W), 0 or 255.
    n_regions : int
        Number of its 8-connected regions.

    Raises
    ------
    ValueError
        The map has values that are not finite.
    """
    values_HW = _read_finite(map_HW)
    is_marked_HW = values_HW >= min(cut, _PEAK * float(values_HW.max()))
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(is_marked_HW.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2:
        return np.zeros(values_HW.shape, np.uint8), 0
    is_kept = np.concatenate([[False], areas >= _SMALLEST * areas.max()])
    return np.asarray(is_kept[labels_HW] * 255, np.uint8), int(is_kept.sum())


def _read_finite(map_HW: NDArray[Any]) -> NDArray[np.float32]:
    values_HW = np.asarray(map_HW, np.float32)
    if not np.isfinite(values_HW).all():
        raise ValueError("the anomaly map has values that are not finite")
    return values_HW
