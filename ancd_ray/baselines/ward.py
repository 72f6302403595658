"""Masked features, calibrated, and Ward."""

from __future__ import annotations

from ancd_ray.baselines.described import Described, Probs, certain
from ancd_ray.method import clustering


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    return certain(clustering.ward(novel.appearance_ND, n_classes), n_classes)
