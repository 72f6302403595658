"""Search space of a sweep: settings, trials and their steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product as crossed
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.config.overrides import override
from ancd_ray.config.sections import MergeConfig
from ancd_ray.config.sweep import Metric, SweepConfig
from ancd_ray.data.store import Folder, digest
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.stage import Step
from ancd_ray.jobs.archive import Archive
from ancd_ray.jobs.plan import JobPlan, ProductPlan, make
from ancd_ray.jobs.sweep.trial import Task

Settings = Mapping[str, Any]  # dotted key → value

WHERE = "sweep.parameters"
_COUNTED = {"maps": "detections", "views": "view banks", "trained": "trainings"}  # role → what is counted


@dataclass(frozen=True)
class Trial:
    """A training of a product with given settings."""

    plan: ProductPlan
    settings: Settings

    @cached_property
    def id(self) -> str:
        """Id, which is the same for settings that lead to the same classification of regions."""
        return f"{self.plan.name}-{self.plan.step_of('region_predictions').fingerprint}"

    @property
    def own_steps(self) -> list[Step]:
        """Steps of the trial, without those of the base set, merging and evaluation."""
        later = {"image_predictions", "metrics", "map_scores", "region_scores"}
        return [step for step in self.plan.flow.steps if not later & set(step.stage.makes)]

    @property
    def shared_steps(self) -> list[Step]:
        """Steps before the training, which trials may share."""
        own = {"trained", "classifier", "region_predictions"}
        return [step for step in self.own_steps if not own & set(step.stage.makes)]

    @property
    def steps(self) -> list[Step]:
        """Steps of the base set and of the trial."""
        return [*(self.plan.base.steps if self.plan.base else []), *self.own_steps]


@dataclass(frozen=True)
class Space:
    """Search space of a sweep."""

    job: Job  # with only the products of the sweep
    plan: JobPlan  # of that job
    archive: Archive
    metric: Metric
    touches: Mapping[str, str]  # key → the first step whose result it changes
    values: Mapping[str, Sequence[Any]]  # key → its values, evenly spaced for a continuous range
    trials: tuple[Trial, ...]  # known beforehand; empty for an adaptive search

    @property
    def sweep(self) -> SweepConfig:
        """The section `sweep` of the job."""
        assert self.job.sweep is not None
        return self.job.sweep

    @property
    def keys(self) -> list[str]:
        """All keys: those that need trainings, then those of merging."""
        return [*self.trained, *self.merged]

    @property
    def trained(self) -> list[str]:
        """Keys that need a training for each value."""
        return [key for key, step in self.touches.items() if step != "merge"]

    @property
    def merged(self) -> list[str]:
        """Keys that only affect merging, which need no training."""
        return [key for key, step in self.touches.items() if step == "merge"]

    @property
    def n_trials(self) -> int:
        """Maximum number of trials."""
        return len(self.trials) or self.sweep.draws * len(self.plan.products)

    @cached_property
    def merges(self) -> Mapping[str, Sequence[tuple[Settings, MergeConfig]]]:
        """All settings of merging by product."""
        grid = cross({key: self.values[key] for key in self.merged})
        return {
            plan.name: [(settings, override(plan.job, settings, WHERE).merge) for settings in grid]
            for plan in self.plan.products
        }

    def trial(self, product: str, settings: Settings) -> Trial:
        """Make the trial of a product with settings of the trained keys.

        Raises
        ------
        JobError
            The settings are invalid in combination.
        """
        (product_plan,) = make(add_settings(select_products(self.job, [product]), settings), self.archive).products
        return Trial(product_plan, settings)

    def task(self, trial: Trial) -> Task:
        """Make the task of a trial, which is sent to a worker."""
        return Task(
            id=trial.id,
            product=trial.plan.name,
            settings=trial.settings,
            merges=self.merges[trial.plan.name],
            steps=[step.for_travel() for step in trial.steps],
            artifacts={role: ref.step.fingerprint for role, ref in trial.plan.flow.artifacts.items()},
            root=self.plan.root,
            records=self.records,
            max_quarantined=self.job.resources.max_quarantined,
            n_classes=trial.plan.classes.n_novel,
            epochs=trial.plan.job.train.epochs,
            metric=self.metric,
        )

    @property
    def records(self) -> Folder:
        """Folder of the records of trials."""
        return self.folder / "trials"

    @cached_property
    def folder(self) -> Folder:
        """Folder of the records, tables and report; the same for the same sweep and archive."""
        asked = self.sweep.model_dump(mode="json", exclude={"max_concurrent", "hours", "cpus", "gpus", "register_best"})
        ends = [plan.step_of("metrics").fingerprint for plan in self.plan.products]
        return self.plan.root / "runs" / f"{self.job.name}-sweep-{digest([asked, ends])[:12]}"

    def counts(self) -> dict[str, tuple[int, int]]:
        """Count the work of the sweep: by kind, how many steps there are and how many of them are done."""
        known = [trial.steps for trial in self.trials] or [Trial(plan, {}).steps for plan in self.plan.products]
        steps = {step.fingerprint: step for some in known for step in some}.values()
        found = {}
        for role, title in _COUNTED.items():
            mine = [step for step in steps if role in step.stage.makes]
            done = sum(Output.find(step.folder(self.plan.root)) is not None for step in mine)
            found[title] = (len(mine), done)
        if not self.trials:
            found["trainings"] = (self.n_trials, 0)
        return found

    def forecast(self) -> list[str]:
        """Format the counts as lines for the user."""
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
    """List all combinations of the values of keys."""
    return [dict(zip(values, chosen, strict=True)) for chosen in crossed(*values.values())]


def select_products(job: Job, names: Sequence[str]) -> Job:
    """Return the job with only some of its products."""
    kept = tuple(product for product in job.data.products if product.name in names)
    return job.model_copy(update={"data": job.data.model_copy(update={"products": kept})})


def add_settings(job: Job, settings: Settings) -> Job:
    """Return the job with settings added to the overrides of all products."""
    products = tuple(
        product.model_copy(update={"overrides": {**product.overrides, **settings}}) for product in job.data.products
    )
    return job.model_copy(update={"data": job.data.model_copy(update={"products": products})})
