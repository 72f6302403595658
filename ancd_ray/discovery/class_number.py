"""How many classes there are, judged on frozen features without labels: the silhouette over the number of classes.

Each number K is judged by the mean cosine silhouette of Ward's K classes over several sets of features. The best one
decides; how many resamples of the regions decide alike is the confidence. How stable the classes are when regions are
left out is told beside it. Shape suffixes: N regions, K numbers of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, silhouette_score

from ancd_ray.discovery.clusterings.algorithms import Floats, ward

_RESAMPLES = 10
_KEPT = 0.8  # share of the regions in a resample


@dataclass(frozen=True)
class ClassNumber:
    """The estimate `n_classes`, and what it rests on: for each of `numbers` its `silhouette` and `stability` (ARI)."""

    n_classes: int
    confidence: float  # share of the resamples that come to the same number
    numbers: list[int]
    silhouette: list[float]
    stability: list[float]


def estimate(sets: Sequence[Floats], at_most: int, seed: int = 0) -> ClassNumber:
    """The number of classes, 2 to `at_most`, of regions by several sets of features (N, ·).

    Raises:
        ValueError: three regions or fewer tell nothing.
    """
    n_regions = len(sets[0])
    if n_regions < 4:
        raise ValueError(f"{n_regions} regions are too few to estimate a number of classes from")
    numbers = list(range(2, min(at_most, n_regions - 2) + 1))
    labels = _labels(sets, numbers)
    curve_K = _silhouettes(sets, labels)
    votes, agreed = [], []
    for resample in range(_RESAMPLES):
        rng = np.random.default_rng([seed, resample])
        rows = np.sort(rng.permutation(n_regions)[: max(4, round(_KEPT * n_regions))])
        fewer = [k for k in numbers if k < len(rows) - 1]
        some = [features[rows] for features in sets]
        found = _labels(some, fewer)
        votes.append(fewer[int(np.argmax(_silhouettes(some, found)))])
        agreed.append(
            [
                np.mean([adjusted_rand_score(a[rows], b) for a, b in zip(labels[k], found[k], strict=True)])
                if k in found
                else 0.0
                for k in numbers
            ]
        )
    best = numbers[int(np.argmax(curve_K))]
    stability = np.mean(agreed, axis=0)
    return ClassNumber(best, votes.count(best) / _RESAMPLES, numbers, curve_K.tolist(), stability.tolist())


def _labels(sets: Sequence[Floats], numbers: Sequence[int]) -> dict[int, list[NDArray[np.int64]]]:
    return {k: [ward(features, k) for features in sets] for k in numbers}


def _silhouettes(sets: Sequence[Floats], labels: dict[int, list[Any]]) -> NDArray[np.float64]:
    """Mean silhouette of each number of classes."""
    return np.array(
        [
            np.mean([silhouette_score(x, cls, metric="cosine") for x, cls in zip(sets, of_k, strict=True)])
            for of_k in labels.values()
        ]
    )
