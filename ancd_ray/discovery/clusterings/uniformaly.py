"""UniFormaly (Lee et al., 2023): k-means on the L2-normalized mean of the most anomalous patches.

Differences to the original: patches are ranked by their share of the mask, since regions have no anomaly map, and a
tenth of the patches of the crop is used, instead of 5 % of a whole image.
"""

from __future__ import annotations

import numpy as np

from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.clusterings.algorithms import Probs
from ancd_ray.discovery.features.region_features import RegionFeatures, one_hot


def classes(novel: RegionFeatures, base: RegionFeatures | None, n_classes: int, seed: int) -> Probs:  # noqa: ARG001
    """Compute probabilities (N, K)."""
    length_N1 = np.linalg.norm(novel.top_ND, axis=1, keepdims=True)
    unit_ND = novel.top_ND / np.maximum(length_N1, 1e-12)
    return one_hot(algorithms.kmeans(unit_ND, n_classes, seed, novel.weight_N), n_classes)
