"""Ward's algorithm on calibrated features, averaged inside the mask."""

from __future__ import annotations

from ancd_ray.discovery.clusterings.dendrogram import Dendrogram, Nested
from ancd_ray.discovery.features.region_features import RegionFeatures


def tree(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Nested:  # noqa: ARG001
    """Compute the tree, which is the same for every number of classes."""
    return Nested(Dendrogram.of_points(novel.appearance_ND, novel.weight_N))
