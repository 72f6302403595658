"""Which images are normal, by the distribution of their anomaly scores alone: no label is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

_LEAST = 1e-6  # scores are taken as logarithms; a map of zeros has one too


def normal_probability(scores_N: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probability (N,) that an image is normal: that of the lower of two Gaussians of the logarithm of scores ≥ 0.

    Two values only (masks as maps) are told apart as they are; equal scores tell nothing: 0. Above the lower mean the
    probability never rises again, though a wide Gaussian reaches beyond a narrow one.
    """
    values_N = np.log(np.maximum(np.asarray(scores_N, np.float64), _LEAST))
    levels = np.unique(values_N)
    if len(levels) < 2:
        return np.zeros(len(values_N))
    if len(levels) == 2:
        return np.asarray(values_N == levels[0], np.float64)
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
