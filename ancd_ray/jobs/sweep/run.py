"""Runs a sweep: shared steps, trials, table of results, report, tracking."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, dump_resolved
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder
from ancd_ray.engine.context import StageError
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime, RuntimeProblem
from ancd_ray.engine.stage import Step
from ancd_ray.jobs import tracking
from ancd_ray.jobs.backbones import check_backbones
from ancd_ray.jobs.checks import check_devices, check_ray
from ancd_ray.jobs.plan import resolve_root
from ancd_ray.jobs.results import bind
from ancd_ray.jobs.sweep import results, tracked, tuning
from ancd_ray.jobs.sweep.hooks import FixedTrials, Proposals
from ancd_ray.jobs.sweep.planning import build_search_space
from ancd_ray.jobs.sweep.space import Space, Trial
from ancd_ray.jobs.sweep.trial import Record, Task, bind_outputs, check_regions, make_record, read_records

_SCRATCH = "tune"  # folder for files of Tune, deleted after the trials


def run(job: Job, address: str | None, display: Display) -> Folder:
    """Run a sweep and return its folder, with `report.html`, `sweep.parquet`, `sweep.csv` and `summary.json`.

    Raises
    ------
    JobError, StageError, RuntimeProblem, StoreError, TrackingProblem
        The sweep failed; the message has one line per problem.
    """
    space = build_search_space(job)
    start, resources = time.monotonic(), job.resources
    deadline = start + 3600 * space.sweep.hours if space.sweep.hours else None
    store = tracking.find_store(job, space.plan.root)
    with lock_folder(space.plan.root, display.warn):
        if not space.plan.write_samples():
            space = build_search_space(job)
            space.plan.write_samples()
        check_ray(address)
        if store:
            store.check()
        check_backbones(space.plan)
        for line in space.forecast():
            display.warn(line)
        given = (resources.cpus, resources.gpus, resources.in_process_below, address)
        with Runtime(*given, dashboard=_count_workers(space) > 1) as runtime:
            _check_devices(space, runtime)
            failed = _prepare(space, runtime, display)
            _run_trials(space, runtime, display, failed, deadline)
        folder = space.folder
        ended = list((read_records(space.records) | {record.id: record for record in failed}).values())
        with display.step("report", job.name):
            found = results.Results(space, ended, round(time.monotonic() - start, 1))
            folder.write("job.yaml", dump_resolved(resolve_root(job)).encode())
            results.write(found, folder)
        log = partial(tracked.log, results=found, folder=folder)
        tracking.attempt(display, store, job.name, folder, log)
    return folder


def _check_devices(space: Space, runtime: Runtime) -> None:
    """Check that a trial fits the CPUs and GPUs of Ray, which would otherwise wait for them.

    Raises
    ------
    JobError
        A trial needs more than there is.
    """
    workers = _count_workers(space)
    if problems := check_devices(space.job, runtime.is_remote):
        raise JobError(*problems)
    if space.sweep.gpus or space.sweep.cpus > 1 or workers > 1:
        try:
            tuning.allocate(space.sweep, workers, runtime)
        except RuntimeProblem as error:
            raise JobError(str(error)) from error


def _count_workers(space: Space) -> int:
    return max(trial.plan.job.train.workers for trial in _list_trials(space))


def _list_trials(space: Space) -> Sequence[Trial]:
    """Return the trials that are known beforehand, or else one per product with the settings of the job."""
    return space.trials or [Trial(plan, {}) for plan in space.plan.products]


def _prepare(space: Space, runtime: Runtime, display: Display) -> list[Record]:
    """Run the steps before training, which trials share, and return the records of trials whose steps failed.

    Raises
    ------
    StageError
        A step of the base set failed, which all products need.
    """
    trials = _list_trials(space)
    base = {step.fingerprint: step for trial in trials if trial.plan.base for step in trial.plan.base.steps}
    rest = space.job.resources.max_quarantined
    run_steps(list(base.values()), space.plan.root, runtime, display, rest)
    failed: list[Record] = []
    reasons: dict[tuple[str, ...], str | None] = {}
    for trial in trials:
        shared = trial.shared_steps
        key = tuple(step.fingerprint for step in shared)
        if key not in reasons:
            reasons[key] = _run_shared(space, trial, shared, runtime, display)
        if reason := reasons[key]:
            failed.append(Record(trial.id, trial.plan.name, trial.settings, "failed", reason))
    return failed


def _run_shared(space: Space, trial: Trial, steps: Sequence[Step], runtime: Runtime, display: Display) -> str | None:
    """Run the steps of a trial before training; returns the error message if one fails, else None."""
    try:
        done = run_steps(steps, space.plan.root, runtime, display, space.job.resources.max_quarantined)
        check_regions(trial.plan.name, bind(trial.plan.flow, done).table("regions"), trial.plan.classes.n_novel)
    except StageError as error:
        return str(error).splitlines()[0]
    return None


def _run_trials(
    space: Space, runtime: Runtime, display: Display, failed: Sequence[Record], deadline: float | None
) -> None:
    """Run the trials that are not finished."""
    with display.step("trials", space.job.name) as progress:
        progress.total(space.n_trials)
        ended = {id_: record for id_, record in read_records(space.records).items() if record.status != "failed"}
        hopeless = {record.id for record in failed}
        tasks = [space.task(trial) for trial in space.trials if trial.id not in hopeless]
        todo = [task for task in tasks if task.id not in ended and not _record_if_done(task)]
        proposals: Proposals = FixedTrials(iter(todo))
        n_left = len(todo)
        if space.sweep.search == "optuna":
            from ancd_ray.jobs.sweep.optuna_search import OptunaSearch

            proposals = OptunaSearch(space, ended.values(), hopeless)
            n_left = proposals.n_left
        progress.advance(space.n_trials - n_left)
        scratch = space.folder / _SCRATCH
        scratch.remove()  # left by a run that was killed
        if n_left and (deadline is None or time.monotonic() < deadline):
            share = tuning.allocate(space.sweep, _count_workers(space), runtime)
            epochs = max(trial.plan.job.train.epochs for trial in _list_trials(space))
            try:
                tuning.tune(proposals, n_left, space.sweep, share, epochs, scratch, progress, deadline)
            finally:
                scratch.remove()


def _record_if_done(task: Task) -> bool:
    """Write the record of a trial whose steps other runs have done; returns whether they have."""
    outputs = {step.fingerprint: Output.find(step.folder(task.root)) for step in task.steps}
    artifacts = bind_outputs(task, {fingerprint: output for fingerprint, output in outputs.items() if output})
    if "features" not in artifacts or "region_predictions" not in artifacts:
        return False
    make_record(task, artifacts).write(task.records)
    return True
