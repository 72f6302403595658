"""Clusterings of frozen features; every function gives labels (N,) 0..K-1, the same for the same input and seed.

Shape suffixes: N regions, D feature width, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.mixture import GaussianMixture

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


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


def linked(features_ND: Floats, nearest_NN: Any, n_classes: int, n_pieces: int) -> Labels:
    """Ward's clusters in pieces, of which those with the most links are joined until `n_classes` are left.

    Ward alone prefers classes of one size: it halves a large class before it separates two small ones. Links are pairs
    of nearest neighbours, counted for each member of the smaller piece (after Chameleon, Karypis et al., 1999).
    `nearest_NN` has a 1 where the column is among the nearest neighbours of the row (a sparse matrix does).
    """
    pieces_N = ward(features_ND, n_pieces)
    members_NP = np.eye(n_pieces)[pieces_N]
    links_PP = members_NP.T @ (nearest_NN @ members_NP)
    links_PP += links_PP.T
    size_P, class_P = members_NP.sum(axis=0), np.arange(n_pieces)
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
