"""Calibration of frozen features: centered, each scale of the trunk with the same share of the length, maybe whitened.

Shape suffixes: N regions, D feature width, W scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_BLOCK = 4096  # rows that are in memory in double precision at a time


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
    whitening_DD
        Matrix that calibrated features are multiplied by; their length is 1 then (see `whitening.py`). None: none.
    """

    mean_D: NDArray[np.float64]
    lengths: tuple[float, ...]
    widths: tuple[int, ...]
    whitening_DD: NDArray[np.float32] | None = None

    @classmethod
    def fit(cls, features_ND: Floats, widths: Sequence[int]) -> Calibration:
        """Compute the mean and the lengths of features."""
        return cls.fit_blocks(lambda: split_rows(features_ND), widths)

    @classmethod
    def fit_blocks(cls, read: Callable[[], Iterable[Floats]], widths: Sequence[int]) -> Calibration:
        """Compute the mean and the lengths of features that are read twice, some rows at a time.

        The sums are those of all rows at once, to the last bit.
        """
        total_D, n_rows = None, 0
        for block_ND in read():
            rows_ND = np.asarray(block_ND, np.float64)
            total_D = (rows_ND if total_D is None else np.concatenate([total_D[None], rows_ND])).sum(axis=0)
            n_rows += len(block_ND)
        assert total_D is not None, "there are no features"
        mean_D = np.asarray(total_D / n_rows)
        squared: list[list[Floats]] = [[] for _ in widths]
        for block_ND in read():
            parts = np.split(np.asarray(block_ND, np.float64) - mean_D, np.cumsum(widths)[:-1], axis=1)
            for found, part in zip(squared, parts, strict=True):
                found.append(np.square(part).sum(axis=1))
        lengths = [float(np.sqrt(np.concatenate(found).mean() + 1e-12)) for found in squared]
        return cls(mean_D, tuple(lengths), tuple(widths))

    def apply(self, features_ND: Floats) -> NDArray[np.float64]:
        """Calibrate features (N, D); the features of the fit get a mean square length of 1."""
        parts = np.split(np.asarray(features_ND, np.float64) - self.mean_D, np.cumsum(self.widths)[:-1], axis=1)
        scaled = [part / length for part, length in zip(parts, self.lengths, strict=True)]
        calibrated_ND = np.concatenate(scaled, axis=1) / len(self.widths) ** 0.5
        if self.whitening_DD is None:
            return np.asarray(calibrated_ND)
        # one sum per element: of a matrix product, the last bits depend on the number of rows
        whitened_ND = np.einsum("nd,de->ne", calibrated_ND, self.whitening_DD)
        length_N1 = np.linalg.norm(whitened_ND, axis=1, keepdims=True)
        return np.asarray(whitened_ND / np.maximum(length_N1, 1e-12))


def calibrate(features_ND: Floats, widths: Sequence[int]) -> NDArray[np.float64]:
    """Calibrate features (N, D) by their own mean and lengths."""
    return Calibration.fit(features_ND, widths).apply(features_ND)


def split_rows(features_ND: Floats) -> Iterator[Floats]:
    """Split features into blocks of rows."""
    for start in range(0, max(len(features_ND), 1), _BLOCK):
        yield features_ND[start : start + _BLOCK]
