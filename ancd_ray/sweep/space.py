"""Lays a sweep out: which settings there are, what each of them costs, and the steps that they come to.

What a key costs is read off the fingerprints of the steps: a key that leaves every classification as it is only touches
merging, and is tried on the stored probabilities of every trial; all others make trials, which share what they share.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product as crossed
from typing import Any

import numpy as np

from ancd_ray.archive import Archive
from ancd_ray.config import Job, Merge
from ancd_ray.config_sweep import Metric, Sweep
from ancd_ray.jobfile import JobError
from ancd_ray.outputs import Output
from ancd_ray.overrides import effective, overridden, value_at
from ancd_ray.plan import JobPlan, ProductPlan, Step, make
from ancd_ray.store import Folder, digest
from ancd_ray.sweep.trial import Task

Settings = Mapping[str, Any]  # dotted key → value

_WHERE = "sweep.parameters"
_COUNTED = {"detect": "detections", "views": "view banks", "train": "trainings"}


@dataclass(frozen=True)
class Trial:
    """A training of a product with some settings."""

    plan: ProductPlan
    settings: Settings

    @cached_property
    def id(self) -> str:
        """The same for the same probabilities, whatever settings lead to them."""
        return f"{self.plan.name}-{self.plan.steps['classify'].fingerprint}"

    @property
    def own_steps(self) -> list[Step]:
        """What has to be done for it, apart from the base set and from merging."""
        return [step for name, step in self.plan.steps.items() if name not in ("merge", "evaluate", "score_maps")]

    @property
    def steps(self) -> list[Step]:
        """The same with the base set."""
        return [*self.plan.base.values(), *self.own_steps]


@dataclass(frozen=True)
class Space:
    """A sweep that can be run."""

    job: Job  # with the products to sweep alone
    plan: JobPlan  # of that job as it is
    archive: Archive
    metric: Metric
    touches: Mapping[str, str]  # key → the first step whose result it changes
    values: Mapping[str, Sequence[Any]]  # key → its values, spread evenly where it has a continuous range
    trials: tuple[Trial, ...]  # known before it starts; none of a search that asks after each result

    @property
    def sweep(self) -> Sweep:
        """The section of the job."""
        assert self.job.sweep is not None
        return self.job.sweep

    @property
    def keys(self) -> list[str]:
        """All keys: those that need trials, then those of merging."""
        return [*self.trained, *self.merged]

    @property
    def trained(self) -> list[str]:
        """The keys that need a training for every value."""
        return [key for key, step in self.touches.items() if step != "merge"]

    @property
    def merged(self) -> list[str]:
        """The keys that cost nothing: merging alone reads them."""
        return [key for key, step in self.touches.items() if step == "merge"]

    @property
    def n_trials(self) -> int:
        """How many trials there will be, at most."""
        return len(self.trials) or self.sweep.draws * len(self.plan.products)

    @cached_property
    def merges(self) -> Mapping[str, Sequence[tuple[Settings, Merge]]]:
        """Product → all settings of merging."""
        grid = _cross({key: self.values[key] for key in self.merged})
        return {
            plan.name: [(settings, overridden(plan.job, settings, _WHERE).merge) for settings in grid]
            for plan in self.plan.products
        }

    def trial(self, product: str, settings: Settings) -> Trial:
        """The trial of some settings of the trained keys.

        Raises:
            JobError: they do not go together.
        """
        (product_plan,) = make(_with(_only(self.job, [product]), settings), self.archive).products
        return Trial(product_plan, settings)

    def task(self, trial: Trial) -> Task:
        """What travels to where a trial runs."""
        return Task(
            id=trial.id,
            product=trial.plan.name,
            settings=trial.settings,
            merges=self.merges[trial.plan.name],
            steps=[step.without_listing() for step in trial.steps],
            root=self.plan.root,
            records=self.records,
            max_quarantined=self.job.resources.max_quarantined,
            n_classes=trial.plan.classes.n_novel,
            epochs=trial.plan.job.train.epochs,
            metric=self.metric,
        )

    @property
    def records(self) -> Folder:
        """Where trials leave what came of them."""
        return self.folder / "trials"

    @cached_property
    def folder(self) -> Folder:
        """Where its record, tables and report go: the same sweep over the same archive gives the same folder."""
        asked = self.sweep.model_dump(mode="json", exclude={"max_concurrent", "hours", "cpus", "gpus", "register_best"})
        ends = [plan.steps["evaluate"].fingerprint for plan in self.plan.products]
        return self.plan.root / "runs" / f"{self.job.name}-sweep-{digest([asked, ends])[:12]}"

    def counts(self) -> dict[str, tuple[int, int]]:
        """What the sweep has to do: kind of work → how often, and how often that is done already."""
        known = [trial.steps for trial in self.trials] or [Trial(plan, {}).steps for plan in self.plan.products]
        steps = {step.fingerprint: step for some in known for step in some}.values()
        found = {}
        for name, title in _COUNTED.items():
            mine = [step for step in steps if step.name == name]
            done = sum(Output.find(step.folder(self.plan.root)) is not None for step in mine)
            found[title] = (len(mine), done)
        if not self.trials:
            found["trainings"] = (self.n_trials, 0)
        return found

    def forecast(self) -> list[str]:
        """The counts, as people read them."""
        merges = math.prod(len(self.values[key]) for key in self.merged)
        n = len(self.plan.products)
        lines = [
            f"sweep over {n} product{'s' * (n > 1)}: {self.n_trials} trials × {merges} settings of merging = "
            f"{self.n_trials * merges} settings; {self.metric} decides"
        ]
        lines += [f"  {key}: changes {step} and what follows" for key, step in self.touches.items() if step != "merge"]
        lines += [f"  {key}: tried on the stored probabilities of every trial" for key in self.merged]
        for title, (all_, done) in self.counts().items():
            lines.append(f"  {all_} {title}" + (f", {done} of them done already" if done else ""))
        return lines


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
    job = _only(job, sweep.products or names)
    archive = Archive(Folder(job.data.root).uri)
    plan = make(job, archive)
    values = _checked(job, sweep)
    touches = {key: _touched(job, archive, plan, key, some) for key, some in values.items()}
    problems = [
        f"{_WHERE}.{key}: changes no result; there is nothing to choose" for key, step in touches.items() if not step
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
                jobs = [overridden(effective(job, each), {key: value}, _WHERE) for each in job.data.products]
            except JobError as error:
                problems += error.lines
                continue
            values[key].append(value_at(jobs[0], key))
    if problems:
        raise JobError(*dict.fromkeys(problems))
    return values


def _touched(job: Job, archive: Archive, plan: JobPlan, key: str, values: Sequence[Any]) -> str:
    """The first step whose result a key changes; nothing if it changes none."""
    plans = [plan.products, *(make(_with(job, {key: value}), archive).products for value in values)]
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
        problems += [f"{_WHERE}.{key}: a grid takes no continuous range; set sweep.search to random" for key in endless]
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
    grid = _cross({key: space.values[key] for key in space.trained})
    for settings in grid if sweep.search == "grid" else _drawn(space):
        for product_plan in make(_with(space.job, settings), space.archive).products:
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


def _cross(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in crossed(*values.values())]


def _only(job: Job, names: Sequence[str]) -> Job:
    """The job with some of its products."""
    kept = tuple(product for product in job.data.products if product.name in names)
    return job.model_copy(update={"data": job.data.model_copy(update={"products": kept})})


def _with(job: Job, settings: Settings) -> Job:
    """The job with settings for all of its products."""
    products = tuple(
        product.model_copy(update={"overrides": {**product.overrides, **settings}}) for product in job.data.products
    )
    return job.model_copy(update={"data": job.data.model_copy(update={"products": products})})
