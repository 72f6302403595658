"""New classes among unknown regions: groups of regions that are near each other, and far from what is known.

Two unknown regions are linked if they are about as near as known regions are to each other (1.25 times the distance
that 98 % of them do not exceed). Connected regions are a group (single linkage), so a class may have any shape. A group
is a new class if it is large enough, and if its regions are nearer to each other than to known ones: the tail of a
known class is not. In trials on magnetic tiles, with one class held back at a time, groups of average or complete
linkage and of HDBSCAN divided the class.

Shape suffixes: N unknown regions, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import radius_neighbors_graph

from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.discovery.novelty import Novelty

SMALLEST = 5  # regions of a new class
_KNOWN = 0.98  # share of known regions whose distance is smaller than the one by which unknown ones are linked
_LINK = 1.25


@dataclass(frozen=True)
class NewClass:
    """A group of unknown regions.

    Parameters
    ----------
    rows
        Their rows, those that are nearest to others first.
    separateness
        Median distance to known regions, in median distances to the nearest region of the group; above 1.
    """

    rows: NDArray[np.int64]
    separateness: float


def find_new_classes(frozen_ND: Floats, novelty: Novelty, smallest: int = SMALLEST) -> list[NewClass]:
    """Find groups of unknown regions that are new classes, the largest first.

    Parameters
    ----------
    frozen_ND
        Frozen features of unknown regions.
    novelty
        What is known.
    smallest
        Number of regions that a class has at least.
    """
    if len(frozen_ND) < max(smallest, 2) or not len(novelty.distances_Q):
        return []
    features_ND = novelty.calibration.apply(frozen_ND)
    reach = _LINK * float(np.quantile(novelty.distances_Q, _KNOWN))
    links_NN = radius_neighbors_graph(features_ND, reach, mode="distance")
    _, group_N = connected_components(links_NN, directed=False)
    nearest_N = _find_smallest(links_NN)
    known_N = novelty.measure(frozen_ND).distance_N
    found = []
    for group in np.unique(group_N):
        rows = np.flatnonzero(group_N == group)
        if len(rows) < smallest:
            continue
        separateness = float(np.median(known_N[rows]) / max(np.median(nearest_N[rows]), 1e-12))
        if separateness > 1:
            found.append(NewClass(rows[np.argsort(nearest_N[rows], kind="stable")], separateness))
    return sorted(found, key=lambda each: -len(each.rows))


def _find_smallest(links_NN: csr_matrix) -> NDArray[np.float64]:
    """Find the smallest stored value of each row; infinite in rows without any."""
    found = np.full(links_NN.shape[0], np.inf)
    rows = np.repeat(np.arange(links_NN.shape[0]), np.diff(links_NN.indptr))
    np.minimum.at(found, rows, links_NN.data)
    return found
