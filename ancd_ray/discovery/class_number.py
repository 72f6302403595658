"""Estimates the number of classes from frozen features, without labels.

Each number K is scored by the mean cosine silhouette of Ward's K classes over several sets of features; the estimate is
the K with the highest score. The confidence is the share of resamples of the regions with the same estimate. The
stability of each K is the mean ARI between the classes of all regions and those of the resamples.

Shape suffixes: N regions, K numbers of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.metrics.pairwise import cosine_distances

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.clusterings.dendrogram import Dendrogram, Labels
from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.engine.artifacts import Figures
from ancd_ray.engine.context import StageError

_RESAMPLES = 10
_KEPT = 0.8  # share of the regions in a resample


@dataclass(frozen=True)
class ClassNumber:
    """The estimate `n_classes`, and for each of `numbers` its `silhouette` and `stability` (ARI)."""

    n_classes: int
    confidence: float  # share of the resamples with the same estimate
    numbers: list[int]
    silhouette: list[float]
    stability: list[float]


def estimate_class_number(sets: Sequence[Floats], max_classes: int, seed: int = 0) -> ClassNumber:
    """Estimate the number of classes, 2 to `max_classes`, from several sets of features (N, ·) of the same regions.

    Raises
    ------
    ValueError
        There are fewer than four regions.
    """
    n_regions = len(sets[0])
    if n_regions < 4:
        raise ValueError(f"{n_regions} regions are too few to estimate a number of classes from")
    numbers = list(range(2, min(max_classes, n_regions - 2) + 1))
    spaces = [_Space.of(features) for features in sets]
    labels = _cluster_all(spaces, numbers)
    curve_K = _compute_silhouettes(spaces, labels)
    votes, agreed = [], []
    for resample in range(_RESAMPLES):
        rng = np.random.default_rng([seed, resample])
        rows = np.sort(rng.permutation(n_regions)[: max(4, round(_KEPT * n_regions))])
        fewer = [k for k in numbers if k < len(rows) - 1]
        some = [space.take(rows) for space in spaces]
        found = _cluster_all(some, fewer)
        votes.append(fewer[int(np.argmax(_compute_silhouettes(some, found)))])
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


class _Space(NamedTuple):
    """Distances of all pairs of regions in a set of features; those of a resample are a part of them."""

    euclidean_NN: Floats
    cosine_NN: Floats

    @classmethod
    def of(cls, features_ND: Floats) -> _Space:
        return cls(squareform(pdist(features_ND)), cosine_distances(features_ND))

    def take(self, rows: NDArray[np.int64]) -> _Space:
        return _Space(*(distances_NN[np.ix_(rows, rows)] for distances_NN in self))


def _cluster_all(spaces: Sequence[_Space], numbers: Sequence[int]) -> dict[int, list[Labels]]:
    """Cluster by Ward's algorithm into each number of classes, which are cuts of one dendrogram per space."""
    trees = [Dendrogram.of_distances(squareform(space.euclidean_NN, checks=False)) for space in spaces]
    return {k: [tree.cut(k) for tree in trees] for k in numbers}


def _compute_silhouettes(spaces: Sequence[_Space], labels: dict[int, list[Labels]]) -> NDArray[np.float64]:
    """Compute the mean silhouette of each number of classes."""
    return np.array(
        [
            np.mean(
                [
                    silhouette_score(space.cosine_NN, cls, metric="precomputed")
                    for space, cls in zip(spaces, of_k, strict=True)
                ]
            )
            for of_k in labels.values()
        ]
    )


def resolve_class_count(classes: Classes, estimate: Figures | None) -> Classes:
    """Replace the number of novel classes by the estimate, if there is one."""
    return classes if estimate is None else replace(classes, n_novel=int(estimate.values["n_classes"]))


def check_class_count(product: str, n_regions: int, classes: Classes) -> None:
    """Check that there are at least as many regions as classes.

    Raises
    ------
    StageError
        There are fewer.
    """
    if not n_regions:
        raise StageError(f"product {product} has no region to learn from")
    if n_regions < classes.n_novel:
        raise StageError(
            f"product {product}: {n_regions} regions cannot be {classes.n_novel} classes; lower classes.novel"
        )
