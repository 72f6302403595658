"""Estimates the number of classes from frozen features, without labels.

Two estimators look at each number K. Agreement is the mean ARI between K classes of several clusterings (Ward, average
linkage by cosine, k-means) of several sets of features; its estimate is the K with the highest one, from 3 on, since
clusterings agree on 2 wherever one class stands apart. Silhouette is the mean cosine silhouette of Ward's K classes;
its estimate is the K with the highest one. Where they differ, the number lies in a range from the first towards the
second, not more than two away. The confidence is the share of resamples of the regions whose silhouette is highest
within the range. The stability of each K is the mean ARI between Ward's classes of all regions and those of the
resamples.

Shape suffixes: N regions, K numbers of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.metrics.pairwise import cosine_distances

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.clusterings.dendrogram import Dendrogram, Labels
from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.engine.artifacts import Figures
from ancd_ray.engine.context import StageError

_RESAMPLES = 10
_KEPT = 0.8  # share of the regions in a resample
_REACH = 2  # of the range, from the one estimate towards the other


@dataclass(frozen=True)
class ClassNumber:
    """The estimate, its range, and for each of `numbers` its `agreement`, `silhouette` and `stability`.

    Parameters
    ----------
    n_classes
        The number on which clusterings agree best.
    low, high
        The range in which the number lies; both are `n_classes` if the estimators say the same.
    by_silhouette
        The number with the highest silhouette, which may be outside of the range.
    confidence
        Share of the resamples whose silhouette is highest within the range.
    """

    n_classes: int
    low: int
    high: int
    by_silhouette: int
    confidence: float
    numbers: list[int]
    agreement: list[float]
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
    agreement_K = _compute_agreement(sets, spaces, labels, seed)
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
    first = min(1, len(numbers) - 1)  # 3, if there is one
    n_classes, by_silhouette = numbers[first + int(np.argmax(agreement_K[first:]))], numbers[int(np.argmax(curve_K))]
    low, high = sorted((n_classes, int(np.clip(by_silhouette, n_classes - _REACH, n_classes + _REACH))))
    confidence = sum(low <= vote <= high for vote in votes) / _RESAMPLES
    curves = (curve.tolist() for curve in (agreement_K, curve_K, np.mean(agreed, axis=0)))
    return ClassNumber(n_classes, low, high, by_silhouette, confidence, numbers, *curves)


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


def _compute_agreement(
    sets: Sequence[Floats], spaces: Sequence[_Space], labels: dict[int, list[Labels]], seed: int
) -> NDArray[np.float64]:
    """Compute the mean ARI between clusterings into each number of classes."""
    averages = []
    for space in spaces:
        merges = linkage(squareform(space.cosine_NN, checks=False), "average")
        averages.append(Dendrogram(merges[:, :2].astype(np.int64), merges[:, 2]))
    found = []
    for k, of_ward in labels.items():
        members = [*of_ward, *(tree.cut(k) for tree in averages)]
        members += [algorithms.kmeans(features_ND, k, seed) for features_ND in sets]
        found.append(np.mean([adjusted_rand_score(a, b) for a, b in combinations(members, 2)]))
    return np.array(found)


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
