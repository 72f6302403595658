"""Clusterings of frozen features, one file each, on the same regions and the same backbone as AnomalyNCD.

Each has a function `classes(novel, base, n_classes, seed)` that gives probabilities (N, K); no label of a novel region
goes into it. `BY_NAME` is the fixed list that job files name them out of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ancd_ray.discovery.clusterings import anomaly_clustering, gcd, gmm, kmeans, linked, uniformaly, ward
from ancd_ray.discovery.features.region_features import Described, Probs

Baseline: TypeAlias = Callable[[Described, "Described | None", int, int], Probs]

BY_NAME: dict[str, Baseline] = {
    "kmeans": kmeans.classes,
    "ward": ward.classes,
    "gmm": gmm.classes,
    "anomaly_clustering": anomaly_clustering.classes,
    "uniformaly": uniformaly.classes,
    "gcd": gcd.classes,
    "linked": linked.classes,
}
