"""Masked features, calibrated, and Ward."""

from __future__ import annotations

from ancd_ray.discovery.clusterings import algorithms as clustering
from ancd_ray.discovery.features.region_features import Described, Probs, certain


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    return certain(clustering.ward(novel.appearance_ND, n_classes), n_classes)
