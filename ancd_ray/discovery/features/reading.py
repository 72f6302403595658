"""What steps on frozen features share: the descriptors as arrays, and the number of classes where it was estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.roles import Classes
from ancd_ray.data.tables import matrix
from ancd_ray.discovery.clusterings.algorithms import calibrated
from ancd_ray.discovery.features.region_features import Described
from ancd_ray.engine.outputs import Output

_FEATURES = ("masked", "centred", "top", "shape")


def counted(classes: Classes, inputs: Mapping[str, Output]) -> Classes:
    """The classes with the estimated number, if `classes.novel` is `auto`."""
    if estimate := inputs.get("count_classes"):
        return replace(classes, n_novel=int(estimate.values["n_classes"]))
    return classes


def described(source: Output, labelled: bool = False) -> Described:
    """The descriptors of a step as arrays, in the order of its rows."""
    table = source.table("descriptors")
    features: dict[str, Any] = {
        f"{name}_N{'S' if name == 'shape' else 'D'}": matrix(table.column(name)) for name in _FEATURES
    }
    return Described(
        **features,
        score_N=table.column("score").to_numpy(),
        area_N=table.column("area").to_numpy(),
        widths=tuple(source.values["widths"]),
        labels=tuple(table.column("label").to_pylist()) if labelled else None,
    )


def centred(source: Output, rows_M: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Masked features (M, D) of views without their mean colour, calibrated: what classes are compared by.

    `rows_M`: rows of `descriptors`, in rising order (all, if None); of the others no more than a part is in memory.
    """
    rows_M = np.arange(source.rows("descriptors")) if rows_M is None else rows_M
    found, start = [], 0
    for part in source.parts("descriptors"):
        here = rows_M[(start <= rows_M) & (rows_M < start + part.rows)] - start
        if len(here):
            found.append(matrix(source.folder.read_table(part.file, ["centred"]).column("centred"))[here])
        start += part.rows
    return calibrated(np.concatenate(found), tuple(source.values["widths"]))


def taken(novel: Described, rows: Any) -> Described:
    """Some of the regions."""
    arrays = {name: value[rows] for name, value in vars(novel).items() if name.endswith(("_ND", "_NS", "_N"))}
    return replace(novel, **arrays)
