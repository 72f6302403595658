"""Binarization by a single threshold, the baselines of MEBin in Table III."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVELS = 255


def threshold_mask(
    map_HW: NDArray[Any], low: float, high: float, rule: Literal["otsu", "fixed"], epsilon: float = 0.5
) -> tuple[NDArray[np.uint8], int]:
    """Threshold an anomaly map and count the regions of the mask.

    Parameters
    ----------
    map_HW
        Anomaly map.
    low
        Score that is mapped to 0, see `stages.regions.measure_score_range`.
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
    values_HW = np.asarray(map_HW, np.float32)
    if not np.isfinite(values_HW).all():
        raise ValueError("the anomaly map has values that are not finite")
    if high <= low:
        return np.zeros(values_HW.shape, np.uint8), 0
    levels_HW = (np.clip((values_HW - low) / (high - low), 0, 1) * _LEVELS).round().astype(np.uint8)
    flag = cv2.THRESH_BINARY | (cv2.THRESH_OTSU if rule == "otsu" else 0)
    mask_HW = np.asarray(cv2.threshold(levels_HW, epsilon * _LEVELS, 255, flag)[1], np.uint8)
    return mask_HW, int(cv2.connectedComponents(mask_HW, connectivity=8)[0]) - 1
