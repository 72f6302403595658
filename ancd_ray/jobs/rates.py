"""What steps cost: seconds and bytes an image, measured by the runs on this machine, and what a plan costs by them.

    <output>/rates.json     kind of step → its rates in the last few runs

A kind is a stage with its detector, backbone or method, and the number of CPUs. All steps are counted in images of
their product, also those that work on regions: they are taken to be as many an image as in earlier runs. A step takes
a constant time and one that is linear in the images: the rate is the median of the largest runs, and what those of less
than half their size took longer than by this rate is the constant, so that a night of 100 images and a first load of
100,000 are estimated by the same rates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from ancd_ray.config.job import Job
from ancd_ray.data.store import Folder
from ancd_ray.engine.context import shard_rows
from ancd_ray.engine.executor import StepRun
from ancd_ray.engine.outputs import read_or_none
from ancd_ray.engine.stage import Step
from ancd_ray.engine.status import PlanStatus

RATES = "rates.json"
_LAST = 5  # runs whose rates are kept of each kind
_NAMED = ("detector", "backbone", "method", "model_digest")  # fields of stages that say which implementation works

Rates = Mapping[str, Sequence[tuple[float, float, float]]]  # kind → (images · passes, seconds, bytes) of each run


@dataclass(frozen=True)
class Cost:
    """What is left of a step: images, and what they will take; None without rates."""

    images: int
    seconds: float | None = None
    bytes: float | None = None


class Plan(Protocol):
    """Interface of plans whose steps cost something."""

    @property
    def job(self) -> Job:
        """The job."""

    @property
    def root(self) -> Folder:
        """Its output folder."""

    @property
    def steps(self) -> list[Step]:
        """Its steps in order."""

    def count_images(self, step: Step) -> int:
        """Count the images of a step."""


def estimate(plan: Plan, statuses: Sequence[PlanStatus]) -> list[Cost]:
    """Estimate what each step of a plan will cost; a cached one costs nothing."""
    rates = _read(plan)
    costs = []
    for status in statuses:
        step, images = status.step, plan.count_images(status.step)
        left = 0 if status.state == "cached" else max(0, images - status.shards * shard_rows(images))
        known = rates.get(_name_kind(step, plan.job))
        if status.state == "cached":
            costs.append(Cost(0, 0.0, 0.0))
        elif known:
            costs.append(Cost(left, *predict_cost(known, left * step.stage.passes)))
        else:
            costs.append(Cost(left))
    return costs


def predict_cost(known: Sequence[tuple[float, float, float]], images: int) -> tuple[float, float]:
    """Predict the seconds and bytes of a step from those of earlier runs.

    Parameters
    ----------
    known
        Images, seconds and bytes of the runs.
    images
        Number of images, times the passes over them.
    """
    largest = max(run[0] for run in known)
    large = [run for run in known if run[0] >= largest / 2]
    small = [run for run in known if run[0] < largest / 2]
    found = []
    for column in (1, 2):
        rate = median(run[column] / run[0] for run in large)
        constant = median(max(0.0, run[column] - rate * run[0]) for run in small) if small else 0.0
        found.append(constant + rate * images if images else 0.0)
    return found[0], found[1]


def record_rates(plan: Plan, done: Mapping[str, StepRun]) -> None:
    """Add the rates of a run; steps that an earlier one had begun are left out, their seconds are not all of them."""
    sums: dict[str, list[float]] = {}
    for step in plan.steps:
        ran = done[step.fingerprint]
        images = plan.count_images(step)
        if ran.cached or ran.resumed or not images:
            continue
        size = sum(stat.size for stat in ran.output.folder.stats().values())
        found = (images * step.stage.passes, ran.seconds, size)
        kind = _name_kind(step, plan.job)
        sums[kind] = [a + b for a, b in zip(sums.get(kind, (0, 0, 0)), found, strict=True)]
    if sums:
        earlier = _read(plan)
        rates = {**earlier, **{kind: _keep([*earlier.get(kind, ()), tuple(run)]) for kind, run in sums.items()}}
        plan.root.write_json(RATES, rates, durable=False)


def _keep(runs: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Return the last runs, and the largest of the others in place of the oldest of them."""
    last, others = list(runs[-_LAST:]), runs[:-_LAST]
    return [max(others), *last[1:]] if others and max(others)[0] > max(last)[0] else last


def summarize_costs(costs: Sequence[Cost], statuses: Sequence[PlanStatus]) -> str:
    """Say in one line what a plan will cost."""
    todo = [(cost, status) for cost, status in zip(costs, statuses, strict=True) if status.state != "cached"]
    if not todo:
        return "nothing to do"
    known = [cost for cost, _ in todo if cost.seconds is not None]
    if not known:
        return "no rates yet: the first run here measures them"
    unknown = sorted({status.step.name for cost, status in todo if cost.seconds is None})
    seconds, size = (sum(part) for part in zip(*((cost.seconds or 0, cost.bytes or 0) for cost in known), strict=True))
    return f"about {format_seconds(seconds)}, {format_bytes(size)}" + (
        f", and {', '.join(unknown)}, of which there are no rates yet" if unknown else ""
    )


def format_row(cost: Cost) -> tuple[str, str, str]:
    """Format a cost as cells: images, time, size."""
    if cost.seconds is None or cost.bytes is None:
        return f"{cost.images:,}", "?", "?"
    if not cost.images:
        return "", "", ""
    return f"{cost.images:,}", format_seconds(cost.seconds), format_bytes(cost.bytes)


def format_seconds(seconds: float) -> str:
    """Format a time with two digits, which is more than an estimate is worth."""
    for limit, unit_s, unit in ((90, 1, "s"), (90 * 60, 60, "min")):
        if seconds < limit:
            return f"{max(1, round(seconds / unit_s))} {unit}"
    return f"{seconds / 3600:.1f} h"


def format_bytes(size: float) -> str:
    """Format a size in the units of disks."""
    for limit, unit in ((1e6, "kB"), (1e9, "MB"), (1e12, "GB")):
        if size < limit:
            return f"{size / limit * 1000:.{1 if unit == 'GB' else 0}f} {unit}"
    return f"{size / 1e12:.1f} TB"


def _read(plan: Plan) -> Rates:
    """Read the rates; none if the file is missing or not as it was written."""

    def parse(document: Mapping[str, Sequence[Sequence[float]]]) -> Rates:
        return {
            kind: [(float(images), float(seconds), float(size)) for images, seconds, size in runs]
            for kind, runs in dict(document).items()
        }

    return read_or_none(plan.root, RATES, parse) or {}


def _name_kind(step: Step, job: Job) -> str:
    return " ".join([step.name, *_name_parts(step), f"cpus={job.resources.cpus or os.cpu_count()}"])


def _name_parts(step: Step) -> Iterator[str]:
    for name in _NAMED:
        if value := step.stage.hashed.get(name):
            yield value["name"] if isinstance(value, Mapping) else str(value)
