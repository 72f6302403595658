"""The `sweep:` section of a job file: which keys to try, how, and how much that may cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ancd_ray.config.base import Name, Section

EVENLY = 25  # points of a continuous range where trying all of it costs nothing
DRAWS = 20  # trainings a product of a search that draws, unless the job says how many

Metric = Literal["nmi", "ari", "f1", "unsupervised"]


class Range(Section):
    """The values of one key: exactly one of `grid`, `choice`, `uniform` and `loguniform`."""

    grid: tuple[Any, ...] | None = None
    choice: tuple[Any, ...] | None = None  # like grid, where a search draws
    uniform: tuple[float, float] | None = None  # [low, high]
    loguniform: tuple[float, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_of(cls, value: Any) -> Any:
        kinds = list(cls.model_fields)
        if isinstance(value, Mapping) and sum(value.get(kind) is not None for kind in kinds) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}, such as {{grid: [0.1, 0.5]}}")
        return value

    @field_validator("grid", "choice")
    @classmethod
    def _some(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is not None and not values:
            raise ValueError("the range is empty: give at least one value")
        if values and any(value in values[:i] for i, value in enumerate(values)):
            raise ValueError("a value is there twice")
        return values

    @field_validator("uniform", "loguniform")
    @classmethod
    def _ordered(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends and not ends[0] < ends[1]:
            raise ValueError(f"the range is empty: {ends[0]:g} is not below {ends[1]:g}")
        return ends

    @field_validator("loguniform")
    @classmethod
    def _positive(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends and ends[0] <= 0:
            raise ValueError(f"the lower end of a logarithmic range is above 0, not {ends[0]:g}")
        return ends

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values, in order; None of a continuous range."""
        return self.grid or self.choice

    @property
    def evenly(self) -> tuple[Any, ...]:
        """All values, or evenly spread ones of a continuous range."""
        if self.values:
            return self.values
        return tuple(float(f"{self.at(i / (EVENLY - 1)):.4g}") for i in range(EVENLY))

    def at(self, quantile: float) -> Any:
        """The value at a quantile, [0, 1) of a list and [0, 1] of a continuous range: what a random search draws."""
        if self.values:
            return self.values[int(quantile * len(self.values))]
        low, high = self.uniform or self.loguniform or (0.0, 0.0)
        if self.uniform:
            return low + quantile * (high - low)
        return low * math.exp(quantile * math.log(high / low))


class Sweep(Section):
    """Tries settings on products. What only merging reads costs no trial of its own: each trial tries all of it."""

    parameters: Annotated[dict[str, Range], Field(min_length=1)]  # dotted key → its values
    products: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None  # null: all of the job
    metric: Metric | None = None  # at image level; null: nmi where every product has labels, else unsupervised
    search: Literal["grid", "random", "optuna"] = "grid"
    trials: PositiveInt | None = None  # trainings a product; null: the whole grid, or 20 draws
    scheduler: Literal["fifo", "asha"] = "fifo"  # asha ends trials early whose classes stay vague
    max_concurrent: PositiveInt | None = None  # trials at once; null: as many as there are CPUs or GPUs for
    hours: PositiveFloat | None = None  # trials that are not done by then are left to the next run
    cpus: PositiveInt = 1  # of a trial that one worker trains
    gpus: Annotated[float, Field(ge=0)] | None = None  # of a trial, 0.25 shares one among four; null: 1 if there is any
    seed: int = 0  # of the draws
    register_best: bool = False  # each product's best model goes to MLflow's registry

    @field_validator("parameters", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """`train: {lambda: {...}}`, which an override on the command line makes, is `train.lambda: {...}`."""
        return dict(_leaves(value, "")) if isinstance(value, Mapping) else value

    @property
    def draws(self) -> int:
        """Trainings a product of a search that draws."""
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
