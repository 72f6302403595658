"""What steps on frozen features share: the descriptors as arrays, and the number of classes where it was estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ancd_ray.baselines.described import Described, Floats
from ancd_ray.outputs import Output
from ancd_ray.tables import matrix
from ancd_ray.training.loop import Classes

_FEATURES = ("token", "masked", "context", "spread", "top", "shape")


def counted(classes: Classes, inputs: Mapping[str, Output]) -> Classes:
    """The classes with the estimated number, if `classes.novel` is `auto`."""
    if estimate := inputs.get("count_classes"):
        return replace(classes, n_novel=int(estimate.values["n_classes"]))
    return classes


def described(source: Output, views: Output | None = None, labelled: bool = False) -> Described:
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
        views_VND=_views(views, table.column("region_id").to_pylist(), sum(source.values["widths"])) if views else None,
        labels=tuple(table.column("label").to_pylist()) if labelled else None,
    )


def taken(novel: Described, rows: Any) -> Described:
    """Some of the regions."""
    arrays = {name: value[rows] for name, value in vars(novel).items() if name.endswith(("_ND", "_NS", "_N"))}
    views_VND = None if novel.views_VND is None else novel.views_VND[:, rows]
    return replace(novel, **{**arrays, "views_VND": views_VND})


def _views(views: Output, region_ids: Sequence[str], width: int) -> Floats:
    """Class tokens (V, N, D) of the view bank, in the order of the regions."""
    place = {region_id: i for i, region_id in enumerate(region_ids)}
    found: dict[int, Floats] = {}
    for part in views.parts("views"):
        table = views.folder.open_arrow(part.file)
        columns = (table.column(name) for name in ("region_id", "view", "cls"))
        for region_id, view, cls in zip(*columns, strict=True):
            tokens = np.frombuffer(cls.as_buffer(), np.float16)[:width]
            rows = found.setdefault(view.as_py(), np.zeros((len(place), width), np.float32))
            rows[place[region_id.as_py()]] = tokens
    return np.stack([found[view] for view in sorted(found)])
