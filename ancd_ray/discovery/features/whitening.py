"""Whitening by what differs between views of one region: turns, scale and light, which no class depends on.

Shape suffixes: N regions, V views, 2 inside and ring, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.discovery.features.calibration import Calibration
from ancd_ray.discovery.features.ring import RING, subtract_rings

_RIDGE = 0.3  # variance added in every direction, relative to the mean variance between views
_BLOCK = 256  # regions whose views are in memory in double precision at a time


def average_views(views_NV2D: NDArray[Any], share: float = RING) -> NDArray[np.float64]:
    """Average the features (N, D) of regions, less those of their rings, over views."""
    return subtract_rings(views_NV2D.mean(axis=1, dtype=np.float64), share)


def fit_whitening(
    views_NV2D: NDArray[Any], widths: Sequence[int], share: float = RING, ridge: float = _RIDGE
) -> Calibration:
    """Fit a calibration of the averages over views that also whitens them by the covariance between views.

    With S = mean over regions of the covariance of a region's calibrated features over its views, features are
    multiplied by (S + r tr(S) / D · I)^(-1/2) and scaled to unit length.

    Parameters
    ----------
    views_NV2D
        Averages of each view, inside the mask and in the ring.
    widths
        Number of features of each scale.
    share
        Share of the ring that is subtracted.
    ridge
        r, which limits how much a direction is enlarged that no view changes.
    """
    calibration = Calibration.fit(average_views(views_NV2D, share), widths)
    scale_D = np.repeat(calibration.lengths, widths) * len(widths) ** 0.5
    scatter_DD = np.zeros((len(scale_D), len(scale_D)))
    for start in range(0, len(views_NV2D), _BLOCK):
        values_NVD = subtract_rings(views_NV2D[start : start + _BLOCK], share)
        deviations_ND = ((values_NVD - values_NVD.mean(axis=1, keepdims=True)) / scale_D).reshape(-1, len(scale_D))
        scatter_DD += deviations_ND.T @ deviations_ND
    scatter_DD /= views_NV2D.shape[0] * views_NV2D.shape[1]
    mean_variance = np.trace(scatter_DD) / len(scatter_DD)
    if mean_variance < 1e-12:  # all views of a region are equal
        return replace(calibration, whitening_DD=np.eye(len(scale_D), dtype=np.float32))
    variance_D, directions_DD = np.linalg.eigh(scatter_DD + ridge * mean_variance * np.eye(len(scale_D)))
    whitening_DD = (directions_DD / np.sqrt(variance_D)) @ directions_DD.T
    return replace(calibration, whitening_DD=np.asarray(whitening_DD, np.float32))
