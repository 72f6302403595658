"""Dendrograms of Ward's algorithm: made once, cut into any number of classes; points may have weights.

Shape suffixes: N points, P pairs of points, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dendrogram:
    """Merges of N points, by increasing cost.

    Parameters
    ----------
    children
        The two nodes (N - 1, 2) of each merge. Nodes 0 … N - 1 are the points, N + m is the result of merge m.
    heights
        Root (N - 1,) of twice what each merge adds to the sum of squares; of two points, their distance.
    """

    children: NDArray[np.int64]
    heights: NDArray[np.float64]

    @classmethod
    def of_points(cls, features_ND: Floats, weight_N: Floats | None = None) -> Dendrogram:
        """Apply Ward's algorithm to points, which may stand for several equal ones each."""
        return cls.of_distances(pdist(features_ND)) if weight_N is None else cls.of_weighted(features_ND, weight_N)

    @classmethod
    def of_distances(cls, distances_P: Floats) -> Dendrogram:
        """Apply Ward's algorithm to the Euclidean distances of all pairs of points, condensed as by `pdist`."""
        if not len(distances_P):  # of a single point
            return cls(np.empty((0, 2), np.int64), np.empty(0))
        merges = linkage(distances_P, "ward")
        return cls(merges[:, :2].astype(np.int64), merges[:, 2])

    @classmethod
    def of_weighted(cls, features_ND: Floats, weight_N: Floats) -> Dendrogram:
        """Apply Ward's algorithm to points that stand for several equal ones each, as many as their weight.

        The cost of a merge is what it adds to the sum of squares within clusters. Clusters are merged along a chain of
        nearest neighbors: for such costs, the same merges as by always taking the cheapest, in N² steps.
        """
        weight_N = np.asarray(weight_N, np.float64).copy()
        cost_NN = squareform(pdist(features_ND, "sqeuclidean"))
        cost_NN *= weight_N[:, None] * weight_N / (weight_N[:, None] + weight_N)
        np.fill_diagonal(cost_NN, np.inf)
        merges: list[tuple[int, int]] = []
        costs: list[float] = []
        chain: list[int] = []
        is_open_N = np.ones(len(weight_N), bool)
        while len(merges) < len(weight_N) - 1:
            if not chain:
                chain.append(int(np.argmax(is_open_N)))
            last = chain[-1]
            nearest = int(np.argmin(cost_NN[last]))
            if len(chain) == 1 or cost_NN[last, nearest] < cost_NN[last, chain[-2]]:
                chain.append(nearest)
                continue
            kept, gone = chain[-2], last
            del chain[-2:]
            merges.append((kept, gone))
            costs.append(cost_NN[kept, gone])
            _merge(cost_NN, weight_N, kept, gone)
            is_open_N[gone] = False
        order = np.argsort(costs, kind="stable")
        heights = np.sqrt(2 * np.maximum(np.array(costs)[order], 0)) if merges else np.empty(0)
        return cls(_number_nodes([merges[m] for m in order], len(weight_N)), heights)

    def cut(self, n_classes: int) -> Labels:
        """Undo the last merges until there are `n_classes`; returns the class (N,) of each point."""
        n_points = len(self.children) + 1
        top = np.arange(2 * n_points - 1)
        kept = self.children[: n_points - n_classes]
        top[kept] = n_points + np.arange(len(kept))[:, None]
        while not np.array_equal(above := top[top], top):
            top = above
        return np.asarray(np.unique(top[:n_points], return_inverse=True)[1], np.int64)


class Nested(NamedTuple):
    """Nested classes of N points.

    Parameters
    ----------
    dendrogram
        Merges of the points.
    share_NN
        How much each point (row) belongs to the class of each other one; rows sum to 1. None: to its own class alone.
    """

    dendrogram: Dendrogram
    share_NN: Floats | None = None

    def cut(self, n_classes: int) -> NDArray[np.float32]:
        """Compute probabilities (N, K) of the classes of a cut."""
        own_NK = np.eye(n_classes, dtype=np.float32)[self.dendrogram.cut(n_classes)]
        return own_NK if self.share_NN is None else np.asarray(self.share_NN @ own_NK, np.float32)


def _merge(cost_NN: Floats, weight_N: Floats, kept: int, gone: int) -> None:
    """Update costs and weights in place (Lance and Williams, 1967); the merged cluster is in the place `kept`."""
    total_N = weight_N + weight_N[kept] + weight_N[gone]
    shares_N = (weight_N + weight_N[kept]) * cost_NN[kept] + (weight_N + weight_N[gone]) * cost_NN[gone]
    merged_N = (shares_N - weight_N * cost_NN[kept, gone]) / total_N
    merged_N[kept] = np.inf
    cost_NN[kept], cost_NN[:, kept] = merged_N, merged_N
    cost_NN[gone], cost_NN[:, gone] = np.inf, np.inf
    weight_N[kept] += weight_N[gone]


def _number_nodes(merges: list[tuple[int, int]], n_points: int) -> NDArray[np.int64]:
    """Convert merges of places, where the first place keeps the result, to merges of nodes (N - 1, 2)."""
    node = list(range(n_points))
    children = np.empty((len(merges), 2), np.int64)
    for m, (kept, gone) in enumerate(merges):
        children[m] = node[kept], node[gone]
        node[kept] = n_points + m
    return children
