"""Ward's algorithm on diffusion coordinates of whitened features; our own combination of published parts.

A region is linked to its nearest neighbors by exp(-d² / (s s')) with the scale s of each region's own surroundings
(self-tuning spectral clustering, Zelnik-Manor and Perona, 2004). Its coordinates are the eigenvectors of the normalized
matrix times their eigenvalues to the power of a time (diffusion maps, Coifman and Lafon, 2006), scaled to unit length:
regions between which a random walk spreads are near each other, however long and thin their class is. Eigenvectors that
are constant within classes remain, so that unlike in spectral clustering the number of classes does not have to be
known before; there is one tree for every number, and nothing random.

The features are those less the ring around a region, averaged over views and whitened by what differs between them. The
probability of a class is the mean of 1 or 0 for the region's own cluster, which counts twice, and of the share of the
class among the regions that it is linked to.

Shape suffixes: N regions, D feature width, C coordinates, K classes.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import pdist, squareform

from ancd_ray.discovery.clusterings.dendrogram import Dendrogram, Nested
from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.discovery.features.region_features import RegionFeatures

TIME = 8  # steps of the walk
_NEIGHBOURS, _FEWEST = 0.7, 5  # neighbors of a region: this many square roots of the number of regions, and the least
_OWN_SCALE = 7  # the scale of a region's surroundings is the distance to this neighbor
_COORDINATES = 100  # further ones are nearly 0 after the time


def tree(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Nested:  # noqa: ARG001
    """Compute the tree, which is the same for every number of classes."""
    links_NN = link_neighbors(novel.whitened_ND)
    near_NN = links_NN / links_NN.sum(axis=1, keepdims=True)
    own_NN = np.eye(len(near_NN))
    return Nested(cluster_by_diffusion(links_NN), (2 * own_NN + near_NN) / 3)  # the own cluster is the most probable


def link_neighbors(features_ND: Floats) -> Floats:
    """Compute the symmetric weights (N, N) of links between regions of which one is a nearest neighbor of the other."""
    squared_NN = squareform(pdist(features_ND, "sqeuclidean"))
    n_regions = len(squared_NN)
    n_near = min(max(_FEWEST, round(_NEIGHBOURS * n_regions**0.5)), n_regions - 1)
    sorted_NN = np.sort(squared_NN, axis=1)
    scale_N = np.sqrt(sorted_NN[:, min(_OWN_SCALE, n_regions - 1)])
    is_near_NN = squared_NN <= sorted_NN[:, [n_near]]
    np.fill_diagonal(is_near_NN, val=n_regions == 1)
    links_NN = np.exp(-squared_NN / np.maximum(scale_N[:, None] * scale_N, 1e-12))
    return np.asarray(links_NN * (is_near_NN | is_near_NN.T))


def cluster_by_diffusion(links_NN: Floats, time: float = TIME) -> Dendrogram:
    """Cluster regions by Ward's algorithm on their diffusion coordinates.

    Parameters
    ----------
    links_NN
        Symmetric weights of links; every region has one.
    time
        Steps of the random walk; the longer, the coarser is what tells regions apart.
    """
    degree_N, n_regions = links_NN.sum(axis=1), len(links_NN)
    first = max(0, n_regions - _COORDINATES)
    value_C, vector_NC = eigh(
        links_NN / np.sqrt(degree_N[:, None] * degree_N), subset_by_index=(first, n_regions - 1), driver="evr"
    )
    coordinates_NC = vector_NC * np.maximum(value_C, 0) ** time
    length_N1 = np.linalg.norm(coordinates_NC, axis=1, keepdims=True)
    return Dendrogram.of_distances(pdist(coordinates_NC / np.maximum(length_N1, 1e-300)))
