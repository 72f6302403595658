"""UniFormaly (Lee et al., 2023): the mean of the most anomalous patches, on the unit sphere, and k-means.

A patch counts by its share of the mask: a region knows its mask, not its map. A tenth of the patches of the crop, where
the original takes 5 % of a whole image.
"""

from __future__ import annotations

import numpy as np

from ancd_ray.discovery.clusterings import algorithms as clustering
from ancd_ray.discovery.features.region_features import Described, Probs, certain


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    length_N1 = np.linalg.norm(novel.top_ND, axis=1, keepdims=True)
    return certain(clustering.kmeans(novel.top_ND / np.maximum(length_N1, 1e-12), n_classes, seed), n_classes)
