"""Consensus of many clusterings (evidence accumulation): no single weight of shape is right for every product.

Each of many clusterings sees some of the regions, their appearance beside the shape cues at a weight of its own,
and a few more classes than are looked for. How often two regions come together is their affinity, and the classes are
cut out of that. No label is looked at.

Shape suffixes: N regions, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ancd_ray.method.clustering import Floats, Labels, spectral_of, ward

_MEMBERS = 60
_KEPT = 0.8  # share of the regions that a member sees
_SURPLUS = 4  # classes beyond K that it may have: small classes come apart from large ones
SHAPE_WEIGHT = 1.0  # the largest weight of the shape cues beside an appearance of length 1


def consensus(appearance_ND: Floats, shape_NS: Floats, n_classes: int, seed: int) -> NDArray[np.float32]:
    """Probabilities (N, K): how often a region comes with the members of each class.

    Args:
        appearance_ND: features of length about 1.
        shape_NS: shape cues of length about 1.
        n_classes: K, at most N.
        seed: of the choices of the members.
    """
    together_NN = co_association(appearance_ND, shape_NS, n_classes, seed)
    affinity_NN = together_NN.copy()
    np.fill_diagonal(affinity_NN, 0)
    return membership(together_NN, spectral_of(affinity_NN, n_classes), n_classes)


def co_association(appearance_ND: Floats, shape_NS: Floats, n_classes: int, seed: int) -> NDArray[np.float64]:
    """Share (N, N) of the members that saw both regions and put them together; 1 on the diagonal."""
    n_regions = len(shape_NS)
    rng = np.random.default_rng(seed)
    together_NN, seen_NN = np.zeros((n_regions, n_regions)), np.zeros((n_regions, n_regions))
    for _ in range(_MEMBERS):
        weight, surplus = rng.uniform(0, SHAPE_WEIGHT), int(rng.integers(_SURPLUS + 1))
        rows = np.sort(rng.permutation(n_regions)[: max(n_classes, round(_KEPT * n_regions))])
        features_ND = np.concatenate([appearance_ND[rows], weight * shape_NS[rows]], axis=1)
        labels = ward(features_ND, min(n_classes + surplus, len(rows)))
        both = np.ix_(rows, rows)
        together_NN[both] += labels[:, None] == labels[None]
        seen_NN[both] += 1
    together_NN /= np.maximum(seen_NN, 1)
    np.fill_diagonal(together_NN, 1)
    return together_NN


def membership(together_NN: Floats, labels_N: Labels, n_classes: int) -> NDArray[np.float32]:
    """Probabilities (N, K): how often a region comes with the members of each class, itself left out."""
    others_NN = together_NN.copy()
    np.fill_diagonal(others_NN, 0)
    members_NK = np.eye(n_classes)[labels_N]
    counts_NK = np.maximum(members_NK.sum(axis=0) - members_NK, 1)
    share_NK = others_NN @ members_NK / counts_NK + 1e-6
    return np.asarray(share_NK / share_NK.sum(axis=1, keepdims=True), np.float32)
