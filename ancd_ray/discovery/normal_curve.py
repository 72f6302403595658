"""Probability that an image is normal, estimated from the distribution of anomaly scores without labels.

Shape suffixes: N images or regions, M normal images that are known to be, F figures of a score, S different scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

IMAGE_FIGURES = ("score", "top_mean")  # columns of the tables `maps` and `normal_scores`
_FLOOR = 0.1  # lower limit of scores, relative to the median: reciprocals would exaggerate differences below it
_KNOTS = 4096  # maximum number of points of a curve
_INSIDE = 0.99  # quantile of the known scores below which values are taken for normal at first
_ITERATIONS, _CONVERGED = 200, 1e-6
_NONE = 1e-6  # smallest weight of a Gaussian
_VARIANCE = 1e-6  # smallest variance, of values between -1 and 0
_RATE = 0.1  # growth of a score by a standard deviation, which is what scores of normal images have
Floats = NDArray[np.float64]


def stack_figures(table: pa.Table) -> Floats:
    """Return the figures (N, F) of anomaly scores in a table `maps` or `normal_scores`."""
    return np.stack([table.column(name).to_numpy() for name in IMAGE_FIGURES], axis=1).astype(np.float64)


@dataclass(frozen=True)
class Deviation:
    """How far figures of a score are above those of known normal images.

    Parameters
    ----------
    mean_F, deviation_F
        Mean and standard deviation of the logarithms of their figures.
    floor_F
        Lower limits of figures.
    """

    mean_F: Floats
    deviation_F: Floats
    floor_F: Floats

    @classmethod
    def fit(cls, known_MF: Floats) -> Deviation | None:
        """Measure known normal images; None if there are too few of them, or if they do not differ."""
        if len(known_MF) < 2:
            return None
        floor_F = _FLOOR * np.median(known_MF, axis=0)
        if not (floor_F > 0).all():
            return None
        logs_MF = np.log(np.maximum(known_MF, floor_F))
        deviation_F = logs_MF.std(axis=0)
        return cls(logs_MF.mean(axis=0), deviation_F, floor_F) if (deviation_F > 1e-9).all() else None

    def combine(self, figures_NF: Floats) -> Floats:
        """Compute a score (N,) that grows with the largest deviation among the figures, in standard deviations."""
        logs_NF = np.log(np.maximum(figures_NF, self.floor_F))
        return np.asarray(np.exp(_RATE * ((logs_NF - self.mean_F) / self.deviation_F).max(axis=1)))


@dataclass(frozen=True)
class NormalCurve:
    """Probability that an image is normal, a decreasing, piecewise linear function of its anomaly score.

    Parameters
    ----------
    scores_S
        Scores of the fit, increasing.
    probability_S
        Probabilities at these scores.
    deviation
        Makes a score of several figures; None: the first of them is the score.
    """

    scores_S: NDArray[np.float64]
    probability_S: NDArray[np.float64]
    deviation: Deviation | None = None

    @classmethod
    def fit(
        cls, figures_NF: NDArray[np.floating[Any]], known_MF: NDArray[np.floating[Any]] | None = None
    ) -> NormalCurve:
        """Fit a mixture of two Gaussians to −1 / score, for scores ≥ 0, and take the posterior of the lower one.

        Parameters
        ----------
        figures_NF
            Figures of the scores of images that may be normal or not, or their scores (N,).
        known_MF
            Those of normal images. They belong to the lower Gaussian, which exists then even if no image is normal, and
            say how much figures vary: the score is the largest deviation from them. Without them it is the first
            figure.

        Notes
        -----
        Scores of normal images are similar, those of defects have a long tail, which the reciprocal compresses. Of raw
        scores, logarithms and reciprocals, the last separated MTD's normal tiles best, under three settings of
        PatchCore.

        The probability is 1 below the lower mean, and is made monotone above it, where the posterior of a wide Gaussian
        may increase again. If there are only two different scores (masks as maps), it is 1 and 0; if all scores are
        equal, it is 0.
        """
        figures_NF = _as_rows(figures_NF)
        if known_MF is None:
            return cls._fit(figures_NF[:, 0], np.zeros(0))
        known_MF = _as_rows(known_MF)
        deviation = Deviation.fit(known_MF)
        if deviation is None:
            return cls._fit(figures_NF[:, 0], known_MF[:, 0])
        return replace(cls._fit(deviation.combine(figures_NF), deviation.combine(known_MF)), deviation=deviation)

    @classmethod
    def _fit(cls, scores_N: Floats, known_M: Floats) -> NormalCurve:
        scores_S = np.unique(scores_N)
        if len(known_M) > 1:
            scores_S = np.union1d(scores_S, known_M)
        if len(scores_S) < 2:
            return cls(scores_S if len(scores_S) else np.zeros(1), np.zeros(1))
        if len(scores_S) == 2 and len(known_M) < 2:
            return cls(scores_S, np.array([1.0, 0.0]))
        floor = max(_FLOOR * float(np.median(scores_N)), 1e-9 * float(scores_S[-1]))

        def invert(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
            return np.asarray(-1 / np.maximum(np.asarray(scores, np.float64) / max(floor, 1e-12), 1))

        values_S = invert(scores_S)
        if len(known_M) > 1:
            mean, probability_S = _fit_with_known(invert(scores_N), invert(known_M), values_S)
        else:
            mean, probability_S = _fit_blindly(invert(scores_N), values_S)
        probability_S[: int(np.searchsorted(values_S, mean))] = 1.0
        probability_S = np.minimum.accumulate(probability_S)
        kept = np.unique(np.linspace(0, len(scores_S) - 1, min(len(scores_S), _KNOTS)).astype(int))
        return cls(scores_S[kept], probability_S[kept])

    def predict(self, figures_NF: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Compute the probability (N,) of each image to be normal, by the figures or the score (N,) of each."""
        figures_NF = _as_rows(figures_NF)
        scores_N = self.deviation.combine(figures_NF) if self.deviation else figures_NF[:, 0]
        return np.asarray(np.interp(scores_N, self.scores_S, self.probability_S))

    def save(self) -> dict[str, Floats]:
        """Return its arrays by name."""
        arrays = {"normal_scores_S": self.scores_S, "normal_probability_S": self.probability_S}
        if self.deviation:
            arrays |= {f"normal_{name}": values for name, values in vars(self.deviation).items()}
        return arrays

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]]) -> NormalCurve | None:
        """Load what `save` returned, which is among other arrays; None if there is none."""
        if "normal_scores_S" not in arrays:
            return None
        of_deviation = [arrays[name] for field in fields(Deviation) if (name := f"normal_{field.name}") in arrays]
        deviation = Deviation(*of_deviation) if of_deviation else None
        return cls(arrays["normal_scores_S"], arrays["normal_probability_S"], deviation)


def _as_rows(figures_NF: NDArray[np.floating[Any]]) -> Floats:
    return np.asarray(figures_NF, np.float64).reshape(len(figures_NF), -1)


def _fit_blindly(values_N: Floats, at_S: Floats) -> tuple[float, Floats]:
    """Fit two Gaussians; returns the lower mean, and the posterior of the lower one at some values."""
    mixture = GaussianMixture(2, n_init=3, random_state=0).fit(values_N[:, None])
    low = int(mixture.means_.argmin())
    return float(mixture.means_[low, 0]), mixture.predict_proba(at_S[:, None])[:, low]


def _fit_with_known(values_N: Floats, known_M: Floats, at_S: Floats) -> tuple[float, Floats]:
    """Fit two Gaussians by expectation maximization, of which the lower one has known members.

    The weights are those of the values alone, since none or all of them may be normal.
    """
    normal_N = (values_N <= np.quantile(known_M, _INSIDE)).astype(np.float64)
    both, ones_M = np.concatenate([known_M, values_N]), np.ones(len(known_M))
    for _ in range(_ITERATIONS):
        weight = float(np.clip(normal_N.mean(), _NONE, 1 - _NONE))
        low, high = _moments(both, np.concatenate([ones_M, normal_N])), _moments(values_N, 1 - normal_N + _NONE)
        previous, normal_N = normal_N, _posterior(values_N, weight, low, high)
        if np.abs(previous - normal_N).max() < _CONVERGED:
            break
    return low[0], _posterior(at_S, weight, low, high)


def _moments(values_N: Floats, weights_N: Floats) -> tuple[float, float]:
    """Compute the weighted mean and standard deviation."""
    mean = float(np.average(values_N, weights=weights_N))
    return mean, float(np.sqrt(np.average((values_N - mean) ** 2, weights=weights_N) + _VARIANCE))


def _posterior(values_N: Floats, weight: float, low: tuple[float, float], high: tuple[float, float]) -> Floats:
    """Compute the probability of the lower of two Gaussians, given by mean and standard deviation."""
    logs = [
        np.log(share) - np.log(deviation) - ((values_N - mean) / deviation) ** 2 / 2
        for share, (mean, deviation) in ((weight, low), (1 - weight, high))
    ]
    return np.asarray(1 / (1 + np.exp(np.clip(logs[1] - logs[0], -500, 500))))
