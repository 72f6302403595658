"""Mixture of Gaussians on the first 32 principal components of calibrated features, averaged inside the mask."""

from __future__ import annotations

from sklearn.decomposition import PCA

from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.clusterings.algorithms import Probs
from ancd_ray.discovery.features.region_features import RegionFeatures, one_hot

_COMPONENTS = 32  # a Gaussian with more dimensions than regions overfits


def classes(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Probs:  # noqa: ARG001
    """Compute probabilities (N, K)."""
    features_ND = novel.appearance_ND
    n_components = min(_COMPONENTS, *features_ND.shape)
    reduced_ND = PCA(n_components, svd_solver="full").fit_transform(features_ND)
    return one_hot(algorithms.gmm(reduced_ND, n_classes, seed), n_classes)
