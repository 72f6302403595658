"""What the report of a sweep shows, as plain values: the contract between whoever ran it and `render_sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

METRICS = {"nmi": "NMI", "ari": "ARI", "f1": "F1", "unsupervised": "label-free criterion"}


@dataclass(frozen=True)
class Point:
    """A setting of all keys, and its figures by name (None without labels)."""

    settings: Mapping[str, Any]
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class SweptProduct:
    """A product: all points that have the metric, the best of them, and the one nearest to the paper's settings."""

    name: str
    points: Sequence[Point]
    best: Point | None = None
    default: Point | None = None
    counts: Mapping[str, int] | None = None  # done, stopped, failed → trials


@dataclass(frozen=True)
class LostTrial:
    """A trial without figures, and why."""

    product: str
    settings: Mapping[str, Any]
    status: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class SweepReport:
    """A sweep; `trained` and `merged` are its keys, those of trials and those that merging alone reads."""

    name: str
    created_at: datetime
    version: str
    libraries: Mapping[str, str]
    config: str
    metric: str
    trained: Sequence[str]
    merged: Sequence[str]
    defaults: Mapping[str, Any]  # key → the paper's value, where the paper (or this program) has one
    products: Sequence[SweptProduct]
    lost: Sequence[LostTrial]
    trials: int
    left: int  # that the time did not suffice for
    seconds: float  # of this run
    trial_seconds: float  # of all trials together, whenever that was

    @property
    def keys(self) -> list[str]:
        """All keys."""
        return [*self.trained, *self.merged]
