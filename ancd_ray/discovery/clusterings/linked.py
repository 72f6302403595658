"""Ward's clusters, joined by links between nearest neighbors; our own method, not a published one.

The features are those of views without their mean color, which is that of the part or of the light, and shape cues,
since a crop loses its size. The probability of a class is the mean of 1 or 0 for the region's own cluster, and of the
share of the class among its nearest neighbors.
"""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import kneighbors_graph

from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.clusterings.algorithms import Probs
from ancd_ray.discovery.features.region_features import RegionFeatures

_PIECES = 3  # pieces per class
_PIECES_OF_MEANS = 12  # of very many regions: with fewer, Ward divides large classes before it separates a rare one
_ONE_WAY = 1e-3  # weight of links that are not mutual, which decide where there are no others
_NEIGHBOURS = 0.9  # neighbors of a region, in square roots of the number of regions


def classes(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Probs:  # noqa: ARG001
    """Compute probabilities (N, K)."""
    features_ND = novel.appearance_shape_ND
    n_regions = len(features_ND)
    neighbours = min(max(1, round(_NEIGHBOURS * n_regions**0.5)), n_regions - 1)
    n_pieces = min((_PIECES if novel.weight_N is None else _PIECES_OF_MEANS) * n_classes, n_regions)
    nearest_NN = links_NN = kneighbors_graph(features_ND, neighbours)
    if novel.weight_N is not None:
        # A rare class has fewer means than neighbors, but is not among the neighbors of those: links have to be mutual.
        links_NN = nearest_NN.minimum(nearest_NN.T) + _ONE_WAY * nearest_NN
    labels_N = algorithms.neighbor_linked_ward(features_ND, links_NN, n_classes, n_pieces, novel.weight_N)
    own_NK = np.eye(n_classes)[labels_N]
    near_NK = nearest_NN @ own_NK / neighbours
    return np.asarray((own_NK + near_NK) / 2, np.float32)
