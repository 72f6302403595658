"""Plans a sweep: its settings, its trials, and checks.

The fingerprints of the steps show which results a key changes. A key that does not change the classification of regions
only affects merging, and all of its values are evaluated on the stored probabilities of every trial. All other keys
need trials, which share their common steps.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.config.overrides import apply_overrides, override, value_at
from ancd_ray.config.sweep import Metric, SweepConfig
from ancd_ray.jobs.archive import Archive
from ancd_ray.jobs.plan import JobPlan, ProductPlan, make, resolve_root
from ancd_ray.jobs.sweep.space import WHERE, Space, Trial, add_settings, cross, select_products


def build_search_space(job: Job) -> Space:
    """Build the search space of a job with a sweep.

    Raises
    ------
    JobError
        The sweep cannot run; the message has one line for each problem.
    """
    sweep = job.sweep
    assert sweep is not None
    names = [product.name for product in job.data.products]
    for name in sweep.products or ():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise JobError(f"sweep.products: no product {name!r}; there are {', '.join(close or names)}")
    job = select_products(job, sweep.products or names)
    archive = Archive(resolve_root(job).data.root)
    plan = make(job, archive)
    values = _check_values(job, sweep)
    touches = {key: _find_touched_step(job, archive, plan, key, some) for key, some in values.items()}
    problems = [
        f"{WHERE}.{key}: changes no result; there is nothing to choose" for key, step in touches.items() if not step
    ]
    metric, wrong = _choose_metric(sweep, plan)
    space = Space(job, plan, archive, metric, touches, values, ())
    problems += wrong + _check_search(space)
    if problems:
        raise JobError(*problems)
    return Space(job, plan, archive, metric, touches, values, tuple(_list_trials(space)))


def _check_values(job: Job, sweep: SweepConfig) -> dict[str, list[Any]]:
    """Check the values of all keys on all products and return them as the job has them.

    Raises
    ------
    JobError
        A key is unknown, or a value invalid.
    """
    values: dict[str, list[Any]] = {}
    problems: list[str] = []
    for key, range_ in sweep.parameters.items():
        values[key] = []
        for value in range_.evenly:
            try:
                jobs = [override(apply_overrides(job, each), {key: value}, WHERE) for each in job.data.products]
            except JobError as error:
                problems += error.lines
                continue
            values[key].append(value_at(jobs[0], key))
    if problems:
        raise JobError(*dict.fromkeys(problems))
    return values


def _find_touched_step(job: Job, archive: Archive, plan: JobPlan, key: str, values: Sequence[Any]) -> str:
    """Return the name of the first step whose result a key changes; empty if it changes none."""
    plans = [plan.products, *(make(add_settings(job, {key: value}), archive).products for value in values)]
    first = ""
    for variants in zip(*plans, strict=True):
        names = list(dict.fromkeys(step.name for variant in variants for step in variant.steps))
        for name in names:
            prints = {_list_fingerprints(variant, name) for variant in variants}
            if len(prints) > 1 and (not first or names.index(name) < names.index(first)):
                first = name
    return first if first or len(values) > 1 else "merge"


def _list_fingerprints(plan: ProductPlan, name: str) -> tuple[str, ...]:
    return tuple(step.fingerprint for step in plan.steps if step.name == name)


def _choose_metric(sweep: SweepConfig, plan: JobPlan) -> tuple[Metric, list[str]]:
    """Return the metric that decides, and error messages about it."""
    unlabelled = [product.name for product in plan.products if not product.labelled]
    if sweep.metric is None:
        return ("unsupervised" if unlabelled else "nmi"), []
    if sweep.metric == "unsupervised" or not unlabelled:
        return sweep.metric, []
    return sweep.metric, [
        f"sweep.metric={sweep.metric} needs labels, and product {name} has none; unsupervised needs none"
        for name in unlabelled
    ]


def _check_search(space: Space) -> list[str]:
    sweep = space.sweep
    problems = []
    if sweep.search == "grid":
        endless = [key for key in space.trained if sweep.parameters[key].values is None]
        problems += [f"{WHERE}.{key}: a grid takes no continuous range; set sweep.search to random" for key in endless]
        size = math.prod(len(space.values[key]) for key in space.trained)
        if sweep.trials and size > sweep.trials and not endless:
            problems.append(
                f"sweep.trials={sweep.trials}: the grid has {size} trainings per product; set sweep.search to random"
            )
    if sweep.search == "optuna" and importlib.util.find_spec("optuna") is None:
        problems.append("sweep.search: optuna is not installed; python -m pip install 'ancd-ray[optuna]'")
    return problems


def _list_trials(space: Space) -> Iterator[Trial]:
    """List the distinct trials that are known beforehand, by settings and then by product."""
    sweep, seen = space.sweep, set()
    if sweep.search == "optuna":
        return
    grid = cross({key: space.values[key] for key in space.trained})
    for settings in grid if sweep.search == "grid" else _draw_settings(space):
        for product_plan in make(add_settings(space.job, settings), space.archive).products:
            trial = Trial(product_plan, settings)
            if trial.id not in seen:
                seen.add(trial.id)
                yield trial


def _draw_settings(space: Space) -> Iterator[dict[str, Any]]:
    for number in range(space.sweep.draws):
        quantiles = np.random.default_rng([space.sweep.seed, number]).random(len(space.trained))
        yield {
            key: space.sweep.parameters[key].at(float(quantile))
            for key, quantile in zip(space.trained, quantiles, strict=True)
        }
