"""Novelty of regions: how far they are from all regions of the discovery, for the verdict "unknown".

The distance of a region to the nearest reference is compared with the distances of the references to each other
(leave-one-out), which are those of regions of known classes. Its novelty is the share of them that is smaller, a
conformal p-value subtracted from 1: of known regions, a share `rate` has a novelty above 1 − `rate`. References are
taken in equal numbers from each class, so that those of a rare class are there, and their distances count by the size
of their class. Classes that are found later, among unknown regions, are added as further references. Regions that
people have put into classes are references as well, and what is nearest to one of them is of its class.

Shape suffixes: N regions, M references, C corrected regions, D feature width, K classes, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from ancd_ray.discovery.features.calibration import Calibration, Floats
from ancd_ray.discovery.nearest import SAME, find_nearest, find_rows

FILE = "novelty.safetensors"
MAX_REFERENCES = 4000
_QUANTILES = 1000


class Measured(NamedTuple):
    """Novelty of regions in 0..1, and their distance to the nearest reference that is another region.

    `cls_N` is the class of the nearest reference, which may be the region itself, and `is_given_N` whether a person has
    said so.
    """

    novelty_N: NDArray[np.float32]
    distance_N: NDArray[np.float64]
    cls_N: NDArray[np.int64]
    is_given_N: NDArray[np.bool_]


@dataclass(frozen=True)
class Novelty:
    """References in frozen features, and the distances of known regions to them.

    Parameters
    ----------
    calibration
        Calibration of the features.
    references_MD
        Features of the references, not calibrated.
    cls_M
        Their classes.
    distances_Q
        Quantiles of the distance of a known region to the nearest other one, in increasing order.
    n_corrected
        Number of the first references, whose classes people have given.
    """

    calibration: Calibration
    references_MD: NDArray[np.float32]
    cls_M: NDArray[np.int64]
    distances_Q: NDArray[np.float64]
    n_corrected: int = 0

    @classmethod
    def empty(cls, calibration: Calibration) -> Novelty:
        """Return one without references, by which nothing is novel."""
        width = len(calibration.mean_D)
        return cls(calibration, np.empty((0, width), np.float32), np.empty(0, np.int64), np.empty(0))

    @classmethod
    def fit(cls, features_ND: Floats, cls_N: NDArray[np.int64], calibration: Calibration, seed: int) -> Novelty:
        """Choose references among the regions of a discovery and measure their distances.

        Parameters
        ----------
        features_ND
            Frozen features of the regions.
        cls_N
            Their classes.
        calibration
            Calibration of the features.
        seed
            Random seed of the choice.
        """
        rows_M = _choose(cls_N, np.random.default_rng(seed))
        references_MD, cls_M = np.asarray(features_ND[rows_M], np.float32), cls_N[rows_M]
        without = cls(calibration, references_MD, cls_M, np.empty(0))
        if len(rows_M) < 2:
            return without
        weight_M = (np.bincount(cls_N) / np.maximum(np.bincount(cls_M, minlength=cls_N.max() + 1), 1))[cls_M]
        distance_M = without.measure(references_MD).distance_N
        return cls(calibration, references_MD, cls_M, _find_quantiles(distance_M, weight_M))

    def save(self) -> dict[str, bytes]:
        """Return the file by its name."""
        whitening_DD = self.calibration.whitening_DD
        arrays = {
            "mean_D": self.calibration.mean_D,
            "lengths": np.array(self.calibration.lengths),
            "widths": np.array(self.calibration.widths),
            "references_MD": self.references_MD,
            "cls_M": self.cls_M,
            "distances_Q": self.distances_Q,
            **({"whitening_DD": whitening_DD} if whitening_DD is not None else {}),
            **({"n_corrected": np.array([self.n_corrected])} if self.n_corrected else {}),
        }
        return {FILE: save({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})}

    @classmethod
    def load(cls, read: Callable[[str], bytes]) -> Novelty:
        """Load it; `read` returns the bytes of a file by name."""
        arrays = {name: tensor.numpy() for name, tensor in load(read(FILE)).items()}
        lengths, widths = tuple(arrays["lengths"].tolist()), tuple(arrays["widths"].tolist())
        calibration = Calibration(arrays["mean_D"], lengths, widths, arrays.get("whitening_DD"))
        n_corrected = int(arrays["n_corrected"][0]) if "n_corrected" in arrays else 0
        return cls(calibration, arrays["references_MD"], arrays["cls_M"], arrays["distances_Q"], n_corrected)

    def measure(self, features_ND: Floats) -> Measured:
        """Compare regions with the references; without references that have distances nothing is novel."""
        if not len(self.references_MD):
            n = len(features_ND)
            return Measured(np.zeros(n, np.float32), np.zeros(n), np.zeros(n, np.int64), np.zeros(n, bool))
        nearest = find_nearest(self.calibration.apply(features_ND), self._known_MD, 2)
        is_own_N = nearest.squared[:, 0] < SAME
        column_N = is_own_N.astype(int) if nearest.squared.shape[1] > 1 else np.zeros(len(is_own_N), int)
        at = (np.arange(len(is_own_N)), column_N)
        distance_N = np.sqrt(nearest.squared[at])
        smaller_N = np.searchsorted(self.distances_Q, distance_N, side="left")
        count = len(self.references_MD)
        novelty_N = smaller_N / max(len(self.distances_Q), 1) * count / (count + 1)
        first_N = nearest.rows[:, 0]
        return Measured(
            novelty_N.astype(np.float32), distance_N, self.cls_M[first_N], np.asarray(first_N < self.n_corrected)
        )

    def extend(self, features_AD: Floats, cls_A: NDArray[np.int64]) -> Novelty:
        """Return it with further references (A, D) of added classes; the distances of known regions stay."""
        references_MD = np.concatenate([self.references_MD, np.asarray(features_AD, np.float32)])
        return replace(self, references_MD=references_MD, cls_M=np.concatenate([self.cls_M, cls_A]))

    def correct(self, features_CD: Floats, cls_C: NDArray[np.int64]) -> Novelty:
        """Return it with regions (C, D) whose classes people have given, in place of what it had of them."""
        is_left_M = np.ones(len(self.references_MD), bool)
        row_C = find_rows(self.calibration.apply(features_CD), self._known_MD)
        is_left_M[row_C[row_C >= 0]] = False
        references_MD = np.concatenate([np.asarray(features_CD, np.float32), self.references_MD[is_left_M]])
        cls_M = np.concatenate([cls_C, self.cls_M[is_left_M]])
        return replace(self, references_MD=references_MD, cls_M=cls_M, n_corrected=len(cls_C))

    def relabel(self, cls_M: NDArray[np.int64]) -> Novelty:
        """Return it with other classes of the references, of which none is given by a person."""
        return replace(self, cls_M=np.asarray(cls_M, np.int64), n_corrected=0)

    def compute_prototypes(self, n_classes: int) -> NDArray[np.float32]:
        """Average the references of each class (K, D); those of a class without references are NaN."""
        found = np.full((n_classes, self.references_MD.shape[1]), np.nan, np.float32)
        for index in np.unique(self.cls_M):
            found[index] = self.references_MD[self.cls_M == index].mean(axis=0)
        return found

    @cached_property
    def _known_MD(self) -> NDArray[np.float64]:
        return self.calibration.apply(self.references_MD)


def _choose(cls_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose at most `MAX_REFERENCES` rows, in equal numbers from each class as far as it has them."""
    order = rng.permutation(len(cls_N))
    if len(cls_N) > MAX_REFERENCES:
        turn_N = np.empty(len(cls_N), np.int64)  # of a row among those of its class
        for index in np.unique(cls_N):
            members = order[cls_N[order] == index]
            turn_N[members] = np.arange(len(members))
        order = order[np.argsort(turn_N[order], kind="stable")[:MAX_REFERENCES]]
    return np.sort(order)


def _find_quantiles(values_M: Floats, weight_M: Floats) -> NDArray[np.float64]:
    """Compute quantiles of weighted values; few values of the same weight are returned as they are."""
    order = np.argsort(values_M, kind="stable")
    if len(values_M) <= _QUANTILES and np.ptp(weight_M) == 0:
        return np.asarray(values_M[order], np.float64)
    shares = np.cumsum(weight_M[order]) / weight_M.sum()
    wanted = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return np.asarray(values_M[order][np.minimum(np.searchsorted(shares, wanted), len(order) - 1)], np.float64)
