"""Matching of the classes of a discovery with those that are known.

Shape suffixes: K classes of the discovery, J known classes, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ancd_ray.discovery.features.calibration import Floats

_SHARED = 0.5  # of the regions that both know, of the class that has fewer of them
_NEAR = 0.5  # distance of prototypes, in mean distances between those of one discovery


def match_by_regions(
    found: Mapping[str, int], known: Mapping[str, str], known_ids: Sequence[str], n_classes: int
) -> dict[int, str]:
    """Match classes that share regions, one to one, so that as many regions as possible keep their class.

    Parameters
    ----------
    found
        Class of each region in the discovery, by region id.
    known
        Id of its class before, by region id.
    known_ids
        The known classes.
    n_classes
        Number of classes of the discovery.

    Returns
    -------
    Id of the known class by the index of the class; classes without a match are left out.
    """
    if not known_ids or not n_classes:
        return {}
    columns = {class_id: j for j, class_id in enumerate(known_ids)}
    shared_KJ = np.zeros((n_classes, len(known_ids)), np.int64)
    for region, index in found.items():
        if known.get(region) in columns:
            shared_KJ[index, columns[known[region]]] += 1
    smaller_KJ = np.minimum(shared_KJ.sum(axis=1)[:, None], shared_KJ.sum(axis=0)[None])
    is_likely_KJ = (shared_KJ > 0) & (shared_KJ >= _SHARED * smaller_KJ)
    rows, chosen = linear_sum_assignment(shared_KJ * is_likely_KJ, maximize=True)
    return {int(k): known_ids[j] for k, j in zip(rows, chosen, strict=True) if is_likely_KJ[k, j]}


def match_by_prototypes(found_KD: Floats, known_JD: Floats, known_ids: Sequence[str], spread: float) -> dict[int, str]:
    """Match classes whose prototypes are near, one to one, in the order of their total distance.

    Parameters
    ----------
    found_KD, known_JD
        Calibrated prototypes; rows with NaN have no match.
    known_ids
        Ids of the known classes.
    spread
        Mean distance between the prototypes of the discovery.

    Returns
    -------
    Id of the known class by the row in `found_KD`; those without a match are left out.
    """
    if not len(found_KD) or not len(known_JD):
        return {}
    distance_KJ = np.sqrt(np.square(found_KD[:, None] - known_JD[None]).sum(axis=-1))
    is_near_KJ = np.nan_to_num(distance_KJ, nan=np.inf) <= _NEAR * spread
    cost_KJ = np.where(is_near_KJ, distance_KJ, 1e6)
    rows, chosen = linear_sum_assignment(cost_KJ)
    return {int(k): known_ids[j] for k, j in zip(rows, chosen, strict=True) if is_near_KJ[k, j]}


def measure_spread(prototypes_KD: Floats) -> float:
    """Compute the mean distance between prototypes; rows with NaN are left out."""
    some = prototypes_KD[~np.isnan(prototypes_KD).any(axis=1)]
    if len(some) < 2:
        return 0.0
    distance: NDArray[np.float64] = np.sqrt(np.square(some[:, None] - some[None]).sum(axis=-1))
    return float(distance[np.triu_indices(len(some), 1)].mean())
