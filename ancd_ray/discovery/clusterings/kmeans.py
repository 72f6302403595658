"""Masked features, calibrated, and k-means."""

from __future__ import annotations

from ancd_ray.discovery.clusterings import algorithms as clustering
from ancd_ray.discovery.features.region_features import Described, Probs, certain


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    return certain(clustering.kmeans(novel.appearance_ND, n_classes, seed), n_classes)
