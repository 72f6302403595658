"""Anomaly Clustering (Sohn et al., WACV 2023): the average of patch features, weighted by anomaly, and Ward.

The weights are the shares of the mask here, since a region knows its mask, not its map; and it is regions that are
clustered, which are merged to images as ours are, where the original clusters whole images.
"""

from __future__ import annotations

from ancd_ray.discovery.clusterings import algorithms as clustering
from ancd_ray.discovery.features.region_features import Described, Probs, certain


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    return certain(clustering.ward(novel.masked_ND, n_classes), n_classes)
