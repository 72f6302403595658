"""Ward's pieces joined by the links of their neighbourhoods, see `clustering.linked`: ours, not a published method.

What a defect looks like is judged without the mean colour of its crop, which is that of the part or of the light, and
beside cues of its shape, since a crop loses its size. How sure a class is: half by the region, half by its neighbours.
"""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import kneighbors_graph

from ancd_ray.discovery.clusterings import algorithms as clustering
from ancd_ray.discovery.features.region_features import Described, Probs

_PIECES = 3  # for each class
_NEIGHBOURS = 0.9  # of a region, in square roots of the number of regions


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    features_ND = novel.look_ND
    n_regions = len(features_ND)
    neighbours = min(max(1, round(_NEIGHBOURS * n_regions**0.5)), n_regions - 1)
    n_pieces = min(_PIECES * n_classes, n_regions)
    nearest_NN = kneighbors_graph(features_ND, neighbours)
    labels_N = clustering.linked(features_ND, nearest_NN, n_classes, n_pieces)
    own_NK = np.eye(n_classes)[labels_N]
    near_NK = nearest_NN @ own_NK / neighbours
    return np.asarray((own_NK + near_NK) / 2, np.float32)
