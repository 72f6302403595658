"""Probability that an image is normal, estimated from the distribution of anomaly scores without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

_FLOOR = 0.1  # lower limit of scores, relative to the median: reciprocals would exaggerate differences below it
_KNOTS = 4096  # maximum number of points of a curve


@dataclass(frozen=True)
class NormalCurve:
    """Probability that an image is normal, a decreasing, piecewise linear function of its anomaly score.

    Parameters
    ----------
    scores_S
        Scores of the fit, increasing.
    probability_S
        Probabilities at these scores.
    """

    scores_S: NDArray[np.float64]
    probability_S: NDArray[np.float64]

    @classmethod
    def fit(cls, scores_N: NDArray[np.floating[Any]]) -> NormalCurve:
        """Fit a mixture of two Gaussians to −1 / score, for scores ≥ 0, and take the posterior of the lower one.

        Scores of normal images are similar, those of defects have a long tail, which the reciprocal compresses. Of raw
        scores, logarithms and reciprocals, the last separated MTD's normal tiles best, under three settings of
        PatchCore.

        The probability is 1 below the lower mean, and is made monotone above it, where the posterior of a wide Gaussian
        may increase again. If there are only two different scores (masks as maps), it is 1 and 0; if all scores are
        equal, it is 0.
        """
        scores_S = np.unique(np.asarray(scores_N, np.float64))
        if len(scores_S) < 2:
            return cls(scores_S if len(scores_S) else np.zeros(1), np.zeros(1))
        if len(scores_S) == 2:
            return cls(scores_S, np.array([1.0, 0.0]))
        floor = max(_FLOOR * float(np.median(scores_N)), 1e-9 * float(scores_S[-1]))

        def invert(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
            return np.asarray(-1 / np.maximum(np.asarray(scores, np.float64) / max(floor, 1e-12), 1))

        mixture = GaussianMixture(2, n_init=3, random_state=0).fit(invert(scores_N)[:, None])
        low = int(mixture.means_.argmin())
        values_S = invert(scores_S)
        probability_S: NDArray[np.float64] = mixture.predict_proba(values_S[:, None])[:, low]
        probability_S[: int(np.searchsorted(values_S, mixture.means_[low, 0]))] = 1.0
        probability_S = np.minimum.accumulate(probability_S)
        kept = np.unique(np.linspace(0, len(scores_S) - 1, min(len(scores_S), _KNOTS)).astype(int))
        return cls(scores_S[kept], probability_S[kept])

    def predict(self, scores_N: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Compute the probability (N,) of each image to be normal."""
        return np.asarray(np.interp(np.asarray(scores_N, np.float64), self.scores_S, self.probability_S))
