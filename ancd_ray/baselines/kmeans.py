"""Masked features, calibrated, and k-means."""

from __future__ import annotations

from ancd_ray.baselines.described import Described, Probs, certain
from ancd_ray.method import clustering


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    return certain(clustering.kmeans(novel.appearance_ND, n_classes, seed), n_classes)
