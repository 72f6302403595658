"""GCD (Vaze et al., CVPR 2022): semi-supervised k-means over base and novel features together.

Base regions stay in the clusters of their labels, novel ones may join any. Novel regions that end in a known class are
assigned to the nearest novel one, since the sets are disjoint here. The backbone stays frozen; the original fine-tunes
it first, with a contrastive loss.
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
    known = np.unique(base.labels, return_inverse=True)[1]
    means_CD = np.stack([base_ND[known == c].mean(axis=0) for c in range(int(known.max()) + 1)])
    runs = [_run(novel_ND, base_ND, known, means_CD, n_classes, seed * _STARTS + start) for start in range(_STARTS)]
    return one_hot(min(runs, key=lambda run: run[0])[1], n_classes)


def _run(
    novel_ND: Floats, base_ND: Floats, known_N: Labels, means_CD: Floats, n_classes: int, seed: int
) -> tuple[float, Labels]:
    """Run k-means from one k-means++ start with the known means given; returns the inertia and the novel classes."""
    rng = np.random.default_rng(seed)
    n_base, centres_CD = len(means_CD), means_CD
    for _ in range(n_classes):
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
    squared_NC = _squared_distances(novel_ND, centres_CD)
    return float(squared_NC.min(axis=1).sum()), squared_NC[:, n_base:].argmin(axis=1)


def _squared_distances(points_ND: Floats, centres_CD: Floats) -> Floats:
    """Compute squared distances (N, C)."""
    squares_N, squares_C = np.square(points_ND).sum(axis=1), np.square(centres_CD).sum(axis=1)
    return np.asarray(squares_N[:, None] + squares_C[None] - 2 * points_ND @ centres_CD.T)
