"""Anomaly Clustering (Sohn et al., WACV 2023): Ward's algorithm on the mean of patch features, weighted by anomaly.

Differences to the original: the weight of a patch is its share of the mask, since regions have no anomaly map, and
regions are clustered and then merged to images, instead of whole images.
"""

from __future__ import annotations

from ancd_ray.discovery.clusterings.dendrogram import Dendrogram, Nested
from ancd_ray.discovery.features.region_features import RegionFeatures


def tree(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Nested:  # noqa: ARG001
    """Compute the tree, which is the same for every number of classes."""
    return Nested(Dendrogram.of_points(novel.masked_ND, novel.weight_N))
