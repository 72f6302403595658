"""K-means on calibrated features, averaged inside the mask."""

from __future__ import annotations

from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.clusterings.algorithms import Probs
from ancd_ray.discovery.features.region_features import RegionFeatures, one_hot


def classes(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Probs:  # noqa: ARG001
    """Compute probabilities (N, K)."""
    return one_hot(algorithms.kmeans(novel.appearance_ND, n_classes, seed, novel.weight_N), n_classes)
