"""Frozen features of a set of regions, for clustering, the number of classes, and the selection of a head.

Shape suffixes: N regions, D feature width, S shape cues.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.tables import column_to_matrix
from ancd_ray.discovery.features.calibration import Floats, calibrate
from ancd_ray.discovery.features.shape import standardize
from ancd_ray.engine.artifacts import Table

_SHAPE_WEIGHT = 0.35  # weight of the shape cues, relative to features of length 1
_FEATURES = ("masked", "centred", "top", "shape")


@dataclass(frozen=True)
class RegionFeatures:
    """Features of N regions; `labels` are the known classes of a base set."""

    masked_ND: Floats
    centred_ND: Floats
    top_ND: Floats
    shape_NS: Floats
    score_N: Floats
    area_N: Floats
    widths: tuple[int, ...]
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.masked_ND)

    @property
    def appearance_ND(self) -> NDArray[np.float64]:
        """Calibrated features, averaged inside the mask."""
        return calibrate(self.masked_ND, self.widths)

    @property
    def appearance_shape_ND(self) -> NDArray[np.float64]:
        """Calibrated features of views without their mean color, averaged inside the mask, and weighted shape cues."""
        centred_ND = calibrate(self.centred_ND, self.widths)
        return np.concatenate([centred_ND, _SHAPE_WEIGHT * standardize(self.shape_NS)], axis=1)

    def take(self, rows: Any) -> RegionFeatures:
        """Select some of the regions."""
        arrays = {name: value[rows] for name, value in vars(self).items() if name.endswith(("_ND", "_NS", "_N"))}
        return replace(self, **arrays)


def read_region_features(features: Table, labeled: bool = False) -> RegionFeatures:
    """Read a table `features`, in the order of its rows."""
    table = features.read()
    arrays: dict[str, Any] = {
        f"{name}_N{'S' if name == 'shape' else 'D'}": column_to_matrix(table.column(name)) for name in _FEATURES
    }
    return RegionFeatures(
        **arrays,
        score_N=table.column("score").to_numpy(),
        area_N=table.column("area").to_numpy(),
        widths=tuple(features.values["widths"]),
        labels=tuple(table.column("label").to_pylist()) if labeled else None,
    )


def read_comparison_features(features: Table, rows_M: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Read the features by which classes are compared: of views without their mean color, averaged inside the mask.

    Parameters
    ----------
    features
        A table `features`.
    rows_M
        Rows in increasing order; None for all. The table is read part by part, and other rows are dropped.

    Returns
    -------
    Calibrated features (M, D).
    """
    rows_M = np.arange(features.num_rows) if rows_M is None else rows_M
    found, start = [], 0
    for part in features.parts:
        here = rows_M[(start <= rows_M) & (rows_M < start + part.rows)] - start
        if len(here):
            found.append(column_to_matrix(features.read_part(part, ["centred"]).column("centred"))[here])
        start += part.rows
    return calibrate(np.concatenate(found), features.values["widths"])


def one_hot(labels_N: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Convert cluster labels to one-hot probabilities (N, K)."""
    return np.eye(n_classes, dtype=np.float32)[labels_N]
