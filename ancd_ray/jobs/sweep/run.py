"""A whole sweep: what all trials share, the trials, the table of results, the report, tracking."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, resolved
from ancd_ray.data.store import Folder, exclusive
from ancd_ray.engine import executor as pipeline
from ancd_ray.engine.context import StageError
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime, RuntimeProblem
from ancd_ray.engine.step import Step
from ancd_ray.jobs import tracking
from ancd_ray.jobs.checks import device_problems
from ancd_ray.jobs.plan import rooted
from ancd_ray.jobs.run import check_backbones
from ancd_ray.jobs.sweep import results, tracked, tuning
from ancd_ray.jobs.sweep.hooks import Listed, Proposals
from ancd_ray.jobs.sweep.planning import lay_out
from ancd_ray.jobs.sweep.space import Space, Trial
from ancd_ray.jobs.sweep.trial import Record, Task, finished, records, too_few

_SCRATCH = "tune"  # what Tune writes, until the trials are over


def run(job: Job, address: str | None, display: Display) -> Folder:
    """Runs a sweep to its end; returns its folder, with `report.html`, `sweep.parquet`, `sweep.csv`, `summary.json`.

    Raises:
        JobError, StageError, RuntimeProblem, StoreError, TrackingProblem: one line each says what is wrong.
    """
    space = lay_out(job)
    start, resources = time.monotonic(), job.resources
    deadline = start + 3600 * space.sweep.hours if space.sweep.hours else None
    with exclusive(space.plan.root):
        tracking.check(tracking.uri_of(space.plan))
        check_backbones(space.plan)
        for line in space.forecast():
            display.warn(line)
        given = (resources.cpus, resources.gpus, resources.in_process_below, address)
        with Runtime(*given, dashboard=_workers(space) > 1) as runtime:
            _check_devices(space, runtime)
            failed = _prepare(space, runtime, display)
            _try(space, runtime, display, failed, deadline)
        folder = space.folder
        ended = list((records(space.records) | {record.id: record for record in failed}).values())
        with display.step("report", job.name):
            found = results.Results(space, ended, round(time.monotonic() - start, 1))
            folder.write("job.yaml", resolved(rooted(job)).encode())
            results.write(found, folder)
        with display.step("track", job.name) as progress:
            try:
                tracked.log(found, folder)
            except tracking.TrackingProblem as error:
                progress.note(str(error))
                display.warn(f"not tracked: {error}")
    return folder


def _check_devices(space: Space, runtime: Runtime) -> None:
    """What no machine has is not waited for.

    Raises:
        JobError: more is asked for than there is.
    """
    workers = _workers(space)
    if problems := device_problems(space.job, runtime.is_remote):
        raise JobError(*problems)
    if space.sweep.gpus or space.sweep.cpus > 1 or workers > 1:
        try:
            tuning.places(space.sweep, workers, runtime)
        except RuntimeProblem as error:
            raise JobError(str(error)) from error


def _workers(space: Space) -> int:
    return max(trial.plan.job.train.workers for trial in _known(space))


def _known(space: Space) -> Sequence[Trial]:
    """The trials that are known, or the products as they are, in their stead."""
    return space.trials or [Trial(plan, {}) for plan in space.plan.products]


def _prepare(space: Space, runtime: Runtime, display: Display) -> list[Record]:
    """Everything before training, once for all trials; the trials of a product that cannot have it have failed.

    Raises:
        StageError: the base set, which all products share, cannot be had.
    """
    trials = _known(space)
    base = {step.fingerprint: step for trial in trials for step in trial.plan.base.values()}
    rest = space.job.resources.max_quarantined
    pipeline.run_steps(list(base.values()), space.plan.root, runtime, display, rest)
    failed: list[Record] = []
    reasons: dict[tuple[str, ...], str | None] = {}
    for trial in trials:
        shared = [step for step in trial.own_steps if step.name not in ("train", "classify")]
        key = tuple(step.fingerprint for step in shared)
        if key not in reasons:
            reasons[key] = _shared(space, trial, shared, runtime, display)
        if reason := reasons[key]:
            failed.append(Record(trial.id, trial.plan.name, trial.settings, "failed", reason))
    return failed


def _shared(space: Space, trial: Trial, steps: Sequence[Step], runtime: Runtime, display: Display) -> str | None:
    """Why the steps before training cannot be done, or None."""
    try:
        runs = pipeline.run_steps(steps, space.plan.root, runtime, display, space.job.resources.max_quarantined)
        regions = next(r.output for r in runs if r.name == "regions" and r.product == trial.plan.name)
        too_few(trial.plan.name, regions, trial.plan.classes.n_novel)
    except StageError as error:
        return str(error).splitlines()[0]
    return None


def _try(space: Space, runtime: Runtime, display: Display, failed: Sequence[Record], deadline: float | None) -> None:
    """All trials that have not ended yet."""
    with display.step("trials", space.job.name) as progress:
        progress.total(space.n_trials)
        ended = {id_: record for id_, record in records(space.records).items() if record.status != "failed"}
        hopeless = {record.id for record in failed}
        tasks = [space.task(trial) for trial in space.trials if trial.id not in hopeless]
        todo = [task for task in tasks if task.id not in ended and not _found(task)]
        proposals: Proposals = Listed(iter(todo))
        n_left = len(todo)
        if space.sweep.search == "optuna":
            from ancd_ray.jobs.sweep.asking import Asking

            proposals = Asking(space, ended.values(), hopeless)
            n_left = proposals.n_left
        progress.advance(space.n_trials - n_left)
        scratch = space.folder / _SCRATCH
        scratch.remove()  # of a run that was killed
        if n_left and (deadline is None or time.monotonic() < deadline):
            share = tuning.places(space.sweep, _workers(space), runtime)
            epochs = max(trial.plan.job.train.epochs for trial in _known(space))
            try:
                tuning.tune(proposals, n_left, space.sweep, share, epochs, scratch, progress, deadline)
            finally:
                scratch.remove()


def _found(task: Task) -> bool:
    """Whether other runs have done all of a trial's steps; its record is then a matter of milliseconds."""
    done = {step.name: Output.find(step.folder(task.root)) for step in task.steps if step.product == task.product}
    described, trained, classified = done["describe"], done["train"], done["classify"]
    if described is None or trained is None or classified is None:
        return False
    finished(task, described, trained, classified).write(task.records)
    return True
