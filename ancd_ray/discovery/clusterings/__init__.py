"""Clusterings of frozen features, one module each, on the same regions and the same backbone as AnomalyNCD.

Each module has a function `classes(novel, base, n_classes, seed)` that computes probabilities (N, K) without labels of
novel regions. `discovery.method` names an entry of `CLUSTERINGS`. Methods whose classes are nested have a function
`tree` with the same arguments instead, of which the classes are a cut: one discovery has every number of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ancd_ray.discovery.clusterings import (
    anomaly_clustering,
    gmm,
    kmeans,
    linked,
    semi_kmeans,
    spectral,
    uniformaly,
    ward,
)
from ancd_ray.discovery.clusterings.algorithms import Probs
from ancd_ray.discovery.clusterings.dendrogram import Nested
from ancd_ray.discovery.features.region_features import RegionFeatures

Clustering: TypeAlias = Callable[[RegionFeatures, "RegionFeatures | None", int, int], Probs]
Tree: TypeAlias = Callable[[RegionFeatures, "RegionFeatures | None", int, int], Nested]

TREES: dict[str, Tree] = {"ward": ward.tree, "anomaly_clustering": anomaly_clustering.tree, "spectral": spectral.tree}
"""The trees of clusterings whose classes are nested."""


def _cut(tree: Tree) -> Clustering:
    return lambda novel, base, n_classes, seed: tree(novel, base, n_classes, seed).cut(n_classes)


CLUSTERINGS: dict[str, Clustering] = {
    "kmeans": kmeans.classes,
    "ward": _cut(ward.tree),
    "gmm": gmm.classes,
    "anomaly_clustering": _cut(anomaly_clustering.tree),
    "uniformaly": uniformaly.classes,
    "semi_kmeans": semi_kmeans.classes,
    "linked": linked.classes,
    "spectral": _cut(spectral.tree),
}

READ: dict[str, tuple[str, ...]] = {
    "linked": ("masked", "centred", "shape"),
    "uniformaly": ("masked", "top"),
    "spectral": ("ringed", "views"),
}
"""The features that a clustering reads; all others read `masked`. Classifiers are made of `masked` or `ringed`."""

TAKE_WEIGHTS = ("kmeans", "ward", "anomaly_clustering", "uniformaly", "linked")
"""Clusterings that take weights of regions into account."""
