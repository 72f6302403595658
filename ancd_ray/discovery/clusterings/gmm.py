"""Masked features, calibrated, their first 32 principal components, and a mixture of Gaussians."""

from __future__ import annotations

from sklearn.decomposition import PCA

from ancd_ray.discovery.clusterings import algorithms as clustering
from ancd_ray.discovery.features.region_features import Described, Probs, certain

_COMPONENTS = 32  # a Gaussian in more dimensions than a class has regions explains anything


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    features_ND = novel.appearance_ND
    n_components = min(_COMPONENTS, *features_ND.shape)
    reduced_ND = PCA(n_components, svd_solver="full").fit_transform(features_ND)
    return certain(clustering.gmm(reduced_ND, n_classes, seed), n_classes)
