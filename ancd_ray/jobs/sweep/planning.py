"""Lays a sweep out: which settings there are, what each of them costs, and what cannot work.

What a key costs is read off the fingerprints of the steps: a key that leaves every classification as it is only touches
merging, and is tried on the stored probabilities of every trial; all others make trials, which share what they share.
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
from ancd_ray.config.overrides import effective, overridden, value_at
from ancd_ray.config.sweep import Metric, Sweep
from ancd_ray.data.store import Folder
from ancd_ray.jobs.archive import Archive
from ancd_ray.jobs.plan import JobPlan, ProductPlan, make
from ancd_ray.jobs.sweep.space import WHERE, Space, Trial, cross, only, with_settings


def lay_out(job: Job) -> Space:
    """The sweep of a job.

    Raises:
        JobError: it cannot be run as it is written; all that can be found, one line each.
    """
    sweep = job.sweep
    assert sweep is not None
    names = [product.name for product in job.data.products]
    for name in sweep.products or ():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise JobError(f"sweep.products: no product {name!r}; there are {', '.join(close or names)}")
    job = only(job, sweep.products or names)
    archive = Archive(Folder(job.data.root).uri)
    plan = make(job, archive)
    values = _checked(job, sweep)
    touches = {key: _touched(job, archive, plan, key, some) for key, some in values.items()}
    problems = [
        f"{WHERE}.{key}: changes no result; there is nothing to choose" for key, step in touches.items() if not step
    ]
    metric, wrong = _metric(sweep, plan)
    space = Space(job, plan, archive, metric, touches, values, ())
    problems += wrong + _search_problems(space)
    if problems:
        raise JobError(*problems)
    return Space(job, plan, archive, metric, touches, values, tuple(_trials(space)))


def _checked(job: Job, sweep: Sweep) -> dict[str, list[Any]]:
    """The values of every key, as every product takes them.

    Raises:
        JobError: a key is unknown, or a value of it cannot be.
    """
    values: dict[str, list[Any]] = {}
    problems: list[str] = []
    for key, range_ in sweep.parameters.items():
        values[key] = []
        for value in range_.evenly:
            try:
                jobs = [overridden(effective(job, each), {key: value}, WHERE) for each in job.data.products]
            except JobError as error:
                problems += error.lines
                continue
            values[key].append(value_at(jobs[0], key))
    if problems:
        raise JobError(*dict.fromkeys(problems))
    return values


def _touched(job: Job, archive: Archive, plan: JobPlan, key: str, values: Sequence[Any]) -> str:
    """The first step whose result a key changes; nothing if it changes none."""
    plans = [plan.products, *(make(with_settings(job, {key: value}), archive).products for value in values)]
    first = ""
    for variants in zip(*plans, strict=True):
        names = list(dict.fromkeys(name for variant in variants for name in (*variant.base, *variant.steps)))
        for name in names:
            prints = {_fingerprints(variant, name) for variant in variants}
            if len(prints) > 1 and (not first or names.index(name) < names.index(first)):
                first = name
    return first if first or len(values) > 1 else "merge"


def _fingerprints(plan: ProductPlan, name: str) -> tuple[str, ...]:
    return tuple(steps[name].fingerprint for steps in (plan.base, plan.steps) if name in steps)


def _metric(sweep: Sweep, plan: JobPlan) -> tuple[Metric, list[str]]:
    """What decides, and what is wrong with it."""
    unlabelled = [product.name for product in plan.products if not product.labelled]
    if sweep.metric is None:
        return ("unsupervised" if unlabelled else "nmi"), []
    if sweep.metric == "unsupervised" or not unlabelled:
        return sweep.metric, []
    return sweep.metric, [
        f"sweep.metric={sweep.metric} needs labels, and product {name} has none; unsupervised needs none"
        for name in unlabelled
    ]


def _search_problems(space: Space) -> list[str]:
    sweep = space.sweep
    problems = []
    if sweep.search == "grid":
        endless = [key for key in space.trained if sweep.parameters[key].values is None]
        problems += [f"{WHERE}.{key}: a grid takes no continuous range; set sweep.search to random" for key in endless]
        size = math.prod(len(space.values[key]) for key in space.trained)
        if sweep.trials and size > sweep.trials and not endless:
            problems.append(
                f"sweep.trials={sweep.trials}: the grid has {size} trainings a product; set sweep.search to random"
            )
    if sweep.search == "optuna" and importlib.util.find_spec("optuna") is None:
        problems.append("sweep.search: optuna is not installed; python -m pip install 'ancd-ray[optuna]'")
    return problems


def _trials(space: Space) -> Iterator[Trial]:
    """The trials that are known beforehand, none twice: the settings in turn, and for each the products."""
    sweep, seen = space.sweep, set()
    if sweep.search == "optuna":
        return
    grid = cross({key: space.values[key] for key in space.trained})
    for settings in grid if sweep.search == "grid" else _drawn(space):
        for product_plan in make(with_settings(space.job, settings), space.archive).products:
            trial = Trial(product_plan, settings)
            if trial.id not in seen:
                seen.add(trial.id)
                yield trial


def _drawn(space: Space) -> Iterator[dict[str, Any]]:
    for number in range(space.sweep.draws):
        quantiles = np.random.default_rng([space.sweep.seed, number]).random(len(space.trained))
        yield {
            key: space.sweep.parameters[key].at(float(quantile))
            for key, quantile in zip(space.trained, quantiles, strict=True)
        }
