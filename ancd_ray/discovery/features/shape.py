"""Shape cues of a region, some of which are lost when crops are scaled to one size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CUES = ("log_area", "log_elongation", "solidity", "log_length", "log_compactness")


def compute_shape_cues(mask_HW: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Compute the shape cues (5,) of a region's mask, in the order of `CUES`; zeros if the mask is empty.

    Area and length are in pixels of the original, so that large and small defects of the same appearance differ.

    Parameters
    ----------
    mask_HW
        Mask of the sub-image, 0 where normal.
    side
        Side of the sub-image's box in pixels of the original.
    """
    marked = (mask_HW > 0).astype(np.uint8)
    area = int(marked.sum())
    if not area:
        return np.zeros(len(CUES), np.float32)
    contours, _ = cv2.findContours(marked, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate(contours)
    hull = max(cv2.contourArea(cv2.convexHull(points)), 1.0)
    # a line of one pixel has a width of 0 between centres of pixels
    short, long = sorted(length + 1 for length in cv2.minAreaRect(points)[1])
    outline = sum(cv2.arcLength(contour, True) for contour in contours) + 1
    scale = side / len(marked)
    cues = (
        np.log(area * scale**2 + 1),
        np.log(long / short),
        min(area / hull, 1.2),
        np.log(long * scale),
        np.log(4 * np.pi * area / outline**2 + 1e-3),
    )
    return np.asarray(cues, np.float32)


def standardize(values_ND: NDArray[Any], reference_MD: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Scale columns to mean 0 and equal spread, and rows to mean square 1; a constant column becomes 0.

    Mean and spread are those of `reference_MD`; None for the values themselves.
    """
    values_ND = np.asarray(values_ND, np.float64)
    reference_MD = values_ND if reference_MD is None else np.asarray(reference_MD, np.float64)
    spread_D = reference_MD.std(axis=0)
    centred_ND = values_ND - reference_MD.mean(axis=0)
    scaled_ND = np.divide(centred_ND, spread_D, out=np.zeros_like(centred_ND), where=spread_D > 1e-9)
    return np.asarray(scaled_ND / max(values_ND.shape[1], 1) ** 0.5)
