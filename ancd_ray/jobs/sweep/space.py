"""A sweep that can be run: its settings, its trials, and the steps that they come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product as crossed
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.config.overrides import overridden
from ancd_ray.config.sections import MergeConfig
from ancd_ray.config.sweep import Metric, Sweep
from ancd_ray.data.store import Folder, digest
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.step import Step
from ancd_ray.jobs.archive import Archive
from ancd_ray.jobs.plan import JobPlan, ProductPlan, make
from ancd_ray.jobs.sweep.trial import Task

Settings = Mapping[str, Any]  # dotted key → value

WHERE = "sweep.parameters"
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
    def merges(self) -> Mapping[str, Sequence[tuple[Settings, MergeConfig]]]:
        """Product → all settings of merging."""
        grid = cross({key: self.values[key] for key in self.merged})
        return {
            plan.name: [(settings, overridden(plan.job, settings, WHERE).merge) for settings in grid]
            for plan in self.plan.products
        }

    def trial(self, product: str, settings: Settings) -> Trial:
        """The trial of some settings of the trained keys.

        Raises:
            JobError: they do not go together.
        """
        (product_plan,) = make(with_settings(only(self.job, [product]), settings), self.archive).products
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


def cross(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values of keys."""
    return [dict(zip(values, chosen, strict=True)) for chosen in crossed(*values.values())]


def only(job: Job, names: Sequence[str]) -> Job:
    """The job with some of its products."""
    kept = tuple(product for product in job.data.products if product.name in names)
    return job.model_copy(update={"data": job.data.model_copy(update={"products": kept})})


def with_settings(job: Job, settings: Settings) -> Job:
    """The job with settings for all of its products."""
    products = tuple(
        product.model_copy(update={"overrides": {**product.overrides, **settings}}) for product in job.data.products
    )
    return job.model_copy(update={"data": job.data.model_copy(update={"products": products})})
