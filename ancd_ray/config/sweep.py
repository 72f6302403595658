"""The `sweep:` section of a job file: the search space, the search, and its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ancd_ray.config.base import Name, Section

EVENLY = 25  # grid points of a continuous range of a key that needs no training
DRAWS = 20  # trainings per product of a random search, unless `trials` is set

Metric = Literal["nmi", "ari", "f1", "unsupervised"]


class SearchRange(Section):
    """The search space of a key: exactly one of `grid`, `choice`, `uniform` and `loguniform`."""

    grid: tuple[Any, ...] | None = None
    choice: tuple[Any, ...] | None = None  # like grid, for a random search
    uniform: tuple[float, float] | None = None  # [low, high]
    loguniform: tuple[float, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_kind(cls, value: Any) -> Any:
        kinds = list(cls.model_fields)
        if isinstance(value, Mapping) and sum(value.get(kind) is not None for kind in kinds) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}, such as {{grid: [0.1, 0.5]}}")
        return value

    @field_validator("grid", "choice")
    @classmethod
    def _check_values(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is not None and not values:
            raise ValueError("the range is empty: give at least one value")
        if values and any(value in values[:i] for i, value in enumerate(values)):
            raise ValueError("a value is listed twice")
        return values

    @field_validator("uniform", "loguniform")
    @classmethod
    def _check_order(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends and not ends[0] < ends[1]:
            raise ValueError(f"the range is empty: {ends[0]:g} is not below {ends[1]:g}")
        return ends

    @field_validator("loguniform")
    @classmethod
    def _check_positive(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends and ends[0] <= 0:
            raise ValueError(f"the lower end of a logarithmic range must be above 0, not {ends[0]:g}")
        return ends

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values in order; None for a continuous range."""
        return self.grid or self.choice

    @property
    def evenly(self) -> tuple[Any, ...]:
        """All values, or evenly spaced ones of a continuous range."""
        if self.values:
            return self.values
        return tuple(float(f"{self.at(i / (EVENLY - 1)):.4g}") for i in range(EVENLY))

    def at(self, quantile: float) -> Any:
        """Return the value at a quantile, in [0, 1) for a list and in [0, 1] for a continuous range."""
        if self.values:
            return self.values[int(quantile * len(self.values))]
        low, high = self.uniform or self.loguniform or (0.0, 0.0)
        if self.uniform:
            return low + quantile * (high - low)
        return low * math.exp(quantile * math.log(high / low))


class SweepConfig(Section):
    """A search for the best settings of each product.

    Keys that affect merging only need no trials of their own: every trial evaluates all of their values.
    """

    parameters: Annotated[dict[str, SearchRange], Field(min_length=1)]  # search space by dotted key
    products: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None  # null: all products of the job
    metric: Metric | None = None  # at image level; null: nmi if all products have labels, else unsupervised
    search: Literal["grid", "random", "optuna"] = "grid"
    trials: PositiveInt | None = None  # trainings per product; null: the whole grid, or 20 draws
    scheduler: Literal["fifo", "asha"] = "fifo"  # asha stops the trials early whose loss L_cls^u + L_reg is highest
    max_concurrent: PositiveInt | None = None  # concurrent trials; null: as many as CPUs or GPUs allow
    hours: PositiveFloat | None = None  # trials that are not done by then are left for the next run
    cpus: PositiveInt = 1  # per trial with one worker
    gpus: Annotated[float, Field(ge=0)] | None = None  # per trial; 0.25: four trials share a GPU; null: 1 if available
    seed: int = 0  # of the random search
    register_best: bool = False  # the short form of `tracking.register: {}`

    @field_validator("parameters", mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        """Flatten `train: {lambda: {...}}`, the form of command-line overrides, to `train.lambda: {...}`."""
        return dict(_leaves(value, "")) if isinstance(value, Mapping) else value

    @property
    def draws(self) -> int:
        """Trainings per product of a random search."""
        return self.trials or DRAWS


def _leaves(node: Mapping[Any, Any], where: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        dotted = f"{where}{key}"
        if isinstance(value, Mapping) and value and all(isinstance(inner, Mapping) for inner in value.values()):
            found += _leaves(value, f"{dotted}.")
        else:
            found.append((dotted, value))
    return found
