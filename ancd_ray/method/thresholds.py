"""Binarization by one threshold: what MEBin is compared with in Table III."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVELS = 255


def threshold_mask(
    map_HW: NDArray[Any], low: float, high: float, rule: Literal["otsu", "fixed"], epsilon: float = 0.5
) -> tuple[NDArray[np.uint8], int]:
    """Mask (H, W), 0 / 255, of an anomaly map above a threshold, and the number of its 8-connected regions.

    Args:
        map_HW: anomaly map.
        low: score that means 0, see `stages.regions.score_range`.
        high: score that means 1; without a range nothing stands out.
        rule: `otsu`, a threshold of its own for each map, or `fixed`, the same for all.
        epsilon: the fixed threshold, of the normalised map.

    Raises:
        ValueError: the map has values that are not finite.
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
