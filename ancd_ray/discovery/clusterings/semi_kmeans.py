"""Semi-supervised k-means of GCD (Vaze et al., CVPR 2022), over base and novel features together.

Base regions stay in the clusters of their labels, novel ones may join any. Novel regions that end in a known class are
assigned to the nearest novel one, since the sets are disjoint here. As a clustering it reads frozen features;
`objectives/gcd.py` has the whole method, which fine-tunes the last block first.

Shape suffixes: N regions, D feature width, C known and novel classes, K novel classes.
"""

from __future__ import annotations

import numpy as np

from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.clusterings.algorithms import Probs
from ancd_ray.discovery.clusterings.dendrogram import Labels
from ancd_ray.discovery.features.calibration import Floats, calibrate
from ancd_ray.discovery.features.region_features import RegionFeatures, one_hot

_ROUNDS = 100
_STARTS = 10


def classes(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Probs:
    """Compute probabilities (N, K); without a base set this is k-means."""
    if base is None or not base.labels:
        return one_hot(algorithms.kmeans(novel.appearance_ND, n_classes, seed), n_classes)
    both_ND = calibrate(np.concatenate([novel.masked_ND, base.masked_ND]), novel.widths)
    novel_ND, base_ND = both_ND[: len(novel)], both_ND[len(novel) :]
    known_N = np.unique(base.labels, return_inverse=True)[1]
    starts = range(seed * _STARTS, (seed + 1) * _STARTS)
    runs = [fit_semi_kmeans(novel_ND, base_ND, known_N, n_classes, start) for start in starts]
    _, centres_CD = min(runs, key=lambda run: run[0])
    return one_hot(_squared_distances(novel_ND, centres_CD[-n_classes:]).argmin(axis=1), n_classes)


def fit_semi_kmeans(
    novel_ND: Floats, base_ND: Floats, known_N: Labels, n_classes: int, seed: int
) -> tuple[float, Floats]:
    """Run k-means from one k-means++ start with the means of the known classes given.

    Parameters
    ----------
    novel_ND, base_ND
        Features of the novel and of the base regions, of which there may be none.
    known_N
        Classes of the base regions, 0, 1, ….
    n_classes
        K, number of novel classes.
    seed
        Random seed.

    Returns
    -------
    inertia : float
        Sum of the squared distances of novel regions to their centroids.
    centres_CD : ndarray
        Centroids, those of the known classes first.
    """
    rng = np.random.default_rng(seed)
    n_base = int(known_N.max()) + 1 if len(known_N) else 0
    centres_CD = np.array([base_ND[known_N == c].mean(axis=0) for c in range(n_base)]).reshape(
        n_base, novel_ND.shape[1]
    )
    for _ in range(n_classes):
        nearest_N = np.ones(len(novel_ND))
        if len(centres_CD):
            nearest_N = _squared_distances(novel_ND, centres_CD).min(axis=1).clip(min=0)
        total = nearest_N.sum()
        pick = rng.choice(len(novel_ND), p=nearest_N / total if total > 0 else None)
        centres_CD = np.concatenate([centres_CD, novel_ND[pick][None]])
    labels_N = np.full(len(novel_ND), -1)
    for _ in range(_ROUNDS):
        found_N = _squared_distances(novel_ND, centres_CD).argmin(axis=1)
        if (found_N == labels_N).all():
            break
        labels_N = found_N
        for c in range(len(centres_CD)):
            members = novel_ND[labels_N == c]
            if c < n_base:
                members = np.concatenate([members, base_ND[known_N == c]])
            if len(members):
                centres_CD[c] = members.mean(axis=0)
    return float(_squared_distances(novel_ND, centres_CD).min(axis=1).sum()), centres_CD


def _squared_distances(points_ND: Floats, centres_CD: Floats) -> Floats:
    """Compute squared distances (N, C)."""
    squares_N, squares_C = np.square(points_ND).sum(axis=1), np.square(centres_CD).sum(axis=1)
    return np.asarray(squares_N[:, None] + squares_C[None] - 2 * points_ND @ centres_CD.T)
