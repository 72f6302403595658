"""Nearest neighbors of regions among references.

Shape suffixes: N regions, M references, D feature width, C candidates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_SPARE = 11  # candidates beyond those wanted: single precision may exchange neighbors of nearly equal distance
SAME = 1e-9  # squared distance, of features of mean square length 1, below which a region is the reference itself
BLOCK = 1024  # regions whose distances are in memory at a time


class Nearest(NamedTuple):
    """Rows of the k nearest references of N regions, the nearest first, and their squared distances, both (N, k)."""

    rows: NDArray[np.int64]
    squared: NDArray[np.float64]


def find_nearest(features_ND: Floats, known_MD: Floats, k: int) -> Nearest:
    """Find the min(k, M) nearest references of each region; of equally near ones the first.

    A matrix product in single precision finds a few candidates. Their distances are computed again in double precision,
    from differences, so that the result does not depend on the other regions, and a distance of 0 is exactly 0.
    """
    k = min(k, len(known_MD))
    single_MD, halves_M = known_MD.astype(np.float32), np.square(known_MD).sum(axis=1).astype(np.float32) / 2
    rows, squared = np.empty((len(features_ND), k), np.int64), np.empty((len(features_ND), k))
    for start in range(0, len(features_ND), BLOCK):
        block_ND = features_ND[start : start + BLOCK]
        candidates_NC = _find_candidates(halves_M - block_ND.astype(np.float32) @ single_MD.T, k + _SPARE)
        squared_NC = np.stack(
            [np.square(block_ND - known_MD[rows_N]).sum(axis=1) for rows_N in candidates_NC.T], axis=1
        )
        order_NC = np.argsort(squared_NC, axis=1, kind="stable")[:, :k]
        rows[start : start + BLOCK] = np.take_along_axis(candidates_NC, order_NC, axis=1)
        squared[start : start + BLOCK] = np.take_along_axis(squared_NC, order_NC, axis=1)
    return Nearest(rows, squared)


def find_rows(features_ND: Floats, known_MD: Floats) -> NDArray[np.int64]:
    """Find the reference (N,) that each region itself is; −1 if it is none of them."""
    if not len(known_MD):
        return np.full(len(features_ND), -1, np.int64)
    nearest = find_nearest(features_ND, known_MD, 1)
    return np.where(nearest.squared[:, 0] < SAME, nearest.rows[:, 0], -1)


def _find_candidates(distance_NM: NDArray[np.float32], n_candidates: int) -> NDArray[np.int64]:
    """Find the columns of the smallest values of each row, in increasing order of the columns."""
    n_candidates = min(n_candidates, distance_NM.shape[1])
    return np.sort(np.argpartition(distance_NM, n_candidates - 1, axis=1)[:, :n_candidates], axis=1)
