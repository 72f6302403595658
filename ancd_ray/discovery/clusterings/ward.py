"""Ward's algorithm on calibrated features, averaged inside the mask."""

from __future__ import annotations

from ancd_ray.discovery.clusterings.algorithms import Probs
from ancd_ray.discovery.clusterings.dendrogram import Dendrogram
from ancd_ray.discovery.features.region_features import RegionFeatures, one_hot


def classes(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Probs:
    """Compute probabilities (N, K)."""
    return one_hot(tree(novel, base, n_classes, seed).cut(n_classes), n_classes)


def tree(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Dendrogram:  # noqa: ARG001
    """Compute the dendrogram, which is the same for every number of classes."""
    return Dendrogram.of_points(novel.appearance_ND, novel.weight_N)
