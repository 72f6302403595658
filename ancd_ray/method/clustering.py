"""Clusterings of frozen features; every function gives labels (N,) 0..K-1, the same for the same input and seed.

Shape suffixes: N regions, D feature width, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering
from sklearn.mixture import GaussianMixture

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
_LINK = 1e-6  # between all: a graph in pieces has no useful spectrum


def calibrated(tokens_ND: Floats, widths: tuple[int, ...]) -> NDArray[np.float64]:
    """Tokens centred on their mean; each of the `widths` (scales of the trunk) has the same share of a length of 1."""
    tokens_ND = np.asarray(tokens_ND, np.float64) - np.mean(tokens_ND, axis=0, dtype=np.float64)
    parts = np.split(tokens_ND, np.cumsum(widths)[:-1], axis=1)
    lengths = [np.sqrt(np.square(part).sum(axis=1).mean() + 1e-12) for part in parts]
    scaled = [part / length for part, length in zip(parts, lengths, strict=True)]
    return np.asarray(np.concatenate(scaled, axis=1) / len(widths) ** 0.5)


def ward(features_ND: Floats, n_classes: int) -> Labels:
    """Ward's agglomerative clustering."""
    return np.asarray(AgglomerativeClustering(n_classes).fit_predict(features_ND), np.int64)


def kmeans(features_ND: Floats, n_classes: int, seed: int = 0) -> Labels:
    """The best of ten runs of k-means."""
    return np.asarray(KMeans(n_classes, n_init=10, random_state=seed).fit_predict(features_ND), np.int64)


def gmm(features_ND: Floats, n_classes: int, seed: int = 0) -> Labels:
    """A mixture of Gaussians with diagonal covariances, begun from k-means."""
    mixture = GaussianMixture(n_classes, covariance_type="diag", reg_covar=1e-4, n_init=3, random_state=seed)
    return np.asarray(mixture.fit_predict(np.asarray(features_ND, np.float64)), np.int64)


def spectral_of(affinity_NN: Floats, n_classes: int) -> Labels:
    """Spectral clustering of a symmetric affinity; without chance."""
    clusters = SpectralClustering(n_classes, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    return np.asarray(clusters.fit_predict(affinity_NN + _LINK), np.int64)
