"""Clustering algorithms; each returns labels (N,) in 0..K-1, and is deterministic for a given seed.

Shape suffixes: N regions, D feature width, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from ancd_ray.discovery.clusterings.dendrogram import Dendrogram, Labels
from ancd_ray.discovery.features.calibration import Floats

Probs = NDArray[np.float32]


def ward(features_ND: Floats, n_classes: int, weight_N: Floats | None = None) -> Labels:
    """Cluster by Ward's agglomerative algorithm; `weight_N` is the number of points that each one stands for."""
    return Dendrogram.of_points(features_ND, weight_N).cut(n_classes)


def kmeans(features_ND: Floats, n_classes: int, seed: int = 0, weight_N: Floats | None = None) -> Labels:
    """Cluster by k-means, the best of ten runs; `weight_N` is the number of points that each one stands for."""
    means = KMeans(n_classes, n_init=10, random_state=seed)
    return np.asarray(means.fit_predict(features_ND, sample_weight=weight_N), np.int64)


def gmm(features_ND: Floats, n_classes: int, seed: int = 0) -> Labels:
    """Cluster by a mixture of Gaussians with diagonal covariances, initialized by k-means."""
    mixture = GaussianMixture(n_classes, covariance_type="diag", reg_covar=1e-4, n_init=3, random_state=seed)
    return np.asarray(mixture.fit_predict(np.asarray(features_ND, np.float64)), np.int64)


def neighbor_linked_ward(
    features_ND: Floats, nearest_NN: Any, n_classes: int, n_pieces: int, weight_N: Floats | None = None
) -> Labels:
    """Cluster by Ward into pieces and join those with the most links until `n_classes` are left.

    Ward alone prefers classes of equal size: it halves a large class before it separates two small ones. Links are
    pairs of nearest neighbors, counted per member of the smaller piece (after Chameleon, Karypis et al., 1999).

    Parameters
    ----------
    features_ND
        Features of the regions.
    nearest_NN
        Matrix, dense or sparse, with a 1 where the column is among the nearest neighbors of the row.
    n_classes
        Number of clusters.
    n_pieces
        Number of clusters of Ward that are joined.
    weight_N
        Number of regions that each one stands for; None if it is one.
    """
    pieces_N = ward(features_ND, n_pieces, weight_N)
    members_NP = np.eye(n_pieces)[pieces_N]
    counted_NP = members_NP if weight_N is None else members_NP * weight_N[:, None]
    links_PP = counted_NP.T @ (nearest_NN @ members_NP)
    links_PP += links_PP.T
    size_P, class_P = counted_NP.sum(axis=0), np.arange(n_pieces)
    while len(size_P) > n_classes:
        shared_PP = links_PP / np.minimum(size_P[:, None], size_P[None])
        shared_PP[np.tril_indices(len(size_P))] = -1
        kept, gone = np.unravel_index(shared_PP.argmax(), shared_PP.shape)
        links_PP[kept] += links_PP[gone]
        links_PP[:, kept] += links_PP[:, gone]
        links_PP = np.delete(np.delete(links_PP, gone, axis=0), gone, axis=1)
        size_P[kept] += size_P[gone]
        size_P = np.delete(size_P, gone)
        class_P[class_P == gone] = kept
        class_P[class_P > gone] -= 1
    return np.asarray(class_P[pieces_N], np.int64)
