"""Micro-clusters: very many regions as a few thousand means, each of which stands for the regions that it has.

K-means finds them top down: regions are divided into groups, and groups into micro-clusters. A region is compared with
about √M means per level, instead of with M, so that the cost is linear in the number of regions. A class of a few
regions gets means of its own, where a random sample may have none of its regions.

Shape suffixes: R regions, M micro-clusters, D feature width.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

Floats = NDArray[np.floating[Any]]
_BRANCHES = 64  # maximum number of groups that a group is divided into
_ITERATIONS = 10
_BATCH = 4096


def find_micro_clusters(features_RD: NDArray[np.float32], n_clusters: int, seed: int) -> NDArray[np.int64]:
    """Compute the micro-cluster (R,) of each region, 0 … M - 1; M is about `n_clusters`, fewer if regions are equal."""
    labels_R = np.empty(len(features_RD), np.int64)
    random = np.random.RandomState(seed)
    todo: list[tuple[NDArray[np.int64] | None, int]] = [(None, n_clusters)]  # None: all, which are not copied
    n_found = 0
    # one thread: of several, the order of summation varies, and with it the last bits; small groups do not need more
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal regions: fewer means than asked for
        while todo:
            rows, n_wanted = todo.pop()
            group_RD = features_RD if rows is None else features_RD[rows]
            rows = np.arange(len(features_RD)) if rows is None else rows
            n_parts = min(n_wanted, len(rows))
            if n_parts > _BRANCHES:
                n_parts = min(_BRANCHES, round(n_parts**0.5))
                parts_R = _divide(MiniBatchKMeans(n_parts, n_init=1, batch_size=_BATCH, random_state=random), group_RD)
                size_P = np.bincount(parts_R)
                if len(size_P) > 1:
                    shares_P = np.maximum(1, np.round(n_wanted * size_P / len(rows)).astype(int))
                    todo += [(rows[parts_R == part], int(share)) for part, share in enumerate(shares_P)]
                    continue
            else:
                parts_R = _divide(KMeans(n_parts, n_init=1, max_iter=_ITERATIONS, random_state=random), group_RD)
            labels_R[rows] = n_found + parts_R
            n_found += int(parts_R.max()) + 1
    return labels_R


def _divide(means: KMeans | MiniBatchKMeans, features_RD: Floats) -> NDArray[np.int64]:
    """Divide regions into the parts that have members, numbered from 0."""
    return np.asarray(np.unique(means.fit_predict(features_RD), return_inverse=True)[1], np.int64)
