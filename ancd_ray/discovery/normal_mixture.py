"""Which images are normal, by the distribution of their anomaly scores alone: no label is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

_FLOOR = 0.1  # of the median score: below it, reciprocals would tell lucky images apart


def normal_probability(scores_N: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probability (N,) that an image is normal: that of the lower of two Gaussians of −1 / score, scores ≥ 0.

    Distances of normal images are close together, those of defects have a long tail; the reciprocal draws it in (of raw
    scores, logarithms and reciprocals it told MTD's normal tiles apart best under three settings of PatchCore).

    Two values only (masks as maps) are told apart as they are; equal scores tell nothing: 0. Above the lower mean the
    probability never rises again, though a wide Gaussian reaches beyond a narrow one.
    """
    levels = np.unique(scores_N)
    if len(levels) < 2:
        return np.zeros(len(scores_N))
    if len(levels) == 2:
        return np.asarray(scores_N == levels[0], np.float64)
    floor = max(_FLOOR * float(np.median(scores_N)), 1e-9 * float(levels[-1]))
    values_N = -1 / np.maximum(np.asarray(scores_N, np.float64) / max(floor, 1e-12), 1)
    mixture = GaussianMixture(2, n_init=3, random_state=0).fit(values_N[:, None])
    low = int(mixture.means_.argmin())
    probability_N: NDArray[np.float64] = mixture.predict_proba(values_N[:, None])[:, low]
    order = np.argsort(values_N)
    first = int(np.searchsorted(values_N[order], mixture.means_[low, 0]))
    falling = probability_N[order]
    falling[:first] = 1.0
    falling = np.minimum.accumulate(falling)
    result = np.empty(len(values_N))
    result[order] = falling
    return result
