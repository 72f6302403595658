"""Calibration of frozen features: centered, and each scale of the trunk with the same share of the length.

Shape suffixes: N regions, D feature width, W scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Calibration:
    """Mean and lengths of a set of features, to calibrate these and other features.

    Parameters
    ----------
    mean_D
        Mean of the features.
    lengths
        Root mean square length of the centered features at each scale.
    widths
        Number of features of each scale.
    """

    mean_D: NDArray[np.float64]
    lengths: tuple[float, ...]
    widths: tuple[int, ...]

    @classmethod
    def fit(cls, features_ND: Floats, widths: Sequence[int]) -> Calibration:
        """Compute the mean and the lengths of features."""
        mean_D = np.asarray(np.mean(features_ND, axis=0, dtype=np.float64))
        parts = np.split(np.asarray(features_ND, np.float64) - mean_D, np.cumsum(widths)[:-1], axis=1)
        lengths = [float(np.sqrt(np.square(part).sum(axis=1).mean() + 1e-12)) for part in parts]
        return cls(mean_D, tuple(lengths), tuple(widths))

    def apply(self, features_ND: Floats) -> NDArray[np.float64]:
        """Calibrate features (N, D); the features of the fit get a mean square length of 1."""
        parts = np.split(np.asarray(features_ND, np.float64) - self.mean_D, np.cumsum(self.widths)[:-1], axis=1)
        scaled = [part / length for part, length in zip(parts, self.lengths, strict=True)]
        return np.asarray(np.concatenate(scaled, axis=1) / len(self.widths) ** 0.5)


def calibrate(features_ND: Floats, widths: Sequence[int]) -> NDArray[np.float64]:
    """Calibrate features (N, D) by their own mean and lengths."""
    return Calibration.fit(features_ND, widths).apply(features_ND)
