"""The content of a sweep's report as plain values: the interface between the caller and `render_sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

METRICS = {"nmi": "NMI", "ari": "ARI", "f1": "F1", "unsupervised": "label-free criterion"}


@dataclass(frozen=True)
class Point:
    """Values of all keys, and the resulting metrics by name (None without labels)."""

    settings: Mapping[str, Any]
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class SweptProduct:
    """The results of a product.

    Parameters
    ----------
    name
        Name of the product.
    points
        All points with a value of the metric.
    best
        The point with the best value.
    default
        The point nearest to the paper's settings.
    counts
        Number of trials by status: done, stopped, failed.
    """

    name: str
    points: Sequence[Point]
    best: Point | None = None
    default: Point | None = None
    counts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class LostTrial:
    """A trial without a result: it failed or was stopped early."""

    product: str
    settings: Mapping[str, Any]
    status: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class SweepReport:
    """A sweep.

    Parameters
    ----------
    name, created_at, version, libraries
        Job name, time, version of ancd-ray, and versions of packages.
    config
        Resolved job file as YAML.
    metric
        Key of `METRICS` by which settings are compared.
    trained, merged
        Keys of the sweep: those that need a training per value, and those that affect merging only.
    defaults
        The paper's values by key; keys without one are missing.
    products, lost
        Results by product, and trials without a result.
    trials, left
        Number of trials, and of those that were not done within `sweep.hours`.
    seconds, trial_seconds
        Time of this run, and time of all trials in any run.
    """

    name: str
    created_at: datetime
    version: str
    libraries: Mapping[str, str]
    config: str
    metric: str
    trained: Sequence[str]
    merged: Sequence[str]
    defaults: Mapping[str, Any]
    products: Sequence[SweptProduct]
    lost: Sequence[LostTrial]
    trials: int
    left: int
    seconds: float
    trial_seconds: float

    @property
    def keys(self) -> list[str]:
        """All keys of the sweep."""
        return [*self.trained, *self.merged]
