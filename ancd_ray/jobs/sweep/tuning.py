"""Runs trials with Ray Tune.

Tune schedules trials, limits their concurrency, retries those whose worker died, and stops some early (ASHA). Its
checkpoints are not used to resume a sweep: trials write ordinary results of steps and records, and a sweep that is
started again skips trials with records. This works also if the sweep has changed, and for jobs in the same way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ancd_ray.config.errors import AncdError
from ancd_ray.config.sweep import SweepConfig
from ancd_ray.data.store import Folder
from ancd_ray.discovery.criterion import asha_objective
from ancd_ray.engine.progress import Progress
from ancd_ray.engine.runtime import Runtime, RuntimeProblem
from ancd_ray.jobs.sweep.hooks import CLARITY, EPOCH, VALUE, Proposals, make_recorder, make_searcher
from ancd_ray.jobs.sweep.trial import Record, Task, run

_WORST = -1e9  # value of a failed trial
_REDUCTION = 3  # ASHA: one in this many trials continues at a rung
_RETRIES = 2  # retries of a trial whose worker died

# keep the files of Tune small, keep the working directory, and let the command line handle Ctrl-C
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class TrialResources:
    """Resources of a trial, and the number of concurrent trials."""

    cpus: float
    gpus: float
    at_once: int


def allocate(sweep: SweepConfig, workers: int, runtime: Runtime) -> TrialResources:
    """Determine the resources of a trial, and how many trials fit Ray at once.

    Raises
    ------
    RuntimeProblem
        No trial fits.
    """
    cpus, gpus = runtime.devices()
    wanted_gpus = (1.0 if gpus else 0.0) if sweep.gpus is None else sweep.gpus
    each_cpus = workers if workers > 1 else sweep.cpus
    each_gpus = wanted_gpus * workers if workers > 1 else wanted_gpus
    if each_gpus > gpus:
        raise RuntimeProblem(f"sweep.gpus={wanted_gpus:g}: a trial takes {each_gpus:g} GPUs, and Ray has {gpus}")
    if each_cpus > cpus:
        key = "train.workers" if workers > 1 else "sweep.cpus"
        raise RuntimeProblem(f"{key}={each_cpus}: a trial takes as many CPUs, and Ray has {cpus}")
    fit = int(cpus // each_cpus)
    if each_gpus:
        fit = min(fit, int(gpus / each_gpus + 1e-9))
    at_once = min(fit, sweep.max_concurrent or fit)
    # the workers of a TorchTrainer reserve their own resources; the trial that waits for them reserves none
    return TrialResources(0.0, 0.0, at_once) if workers > 1 else TrialResources(each_cpus, each_gpus, at_once)


def tune(
    proposals: Proposals,
    n_trials: int,
    sweep: SweepConfig,
    share: TrialResources,
    epochs: int,
    scratch: Folder,
    progress: Progress,
    deadline: float | None,
) -> None:
    """Run trials until there are no more or the deadline is reached; every trial that ended has a record.

    Parameters
    ----------
    n_trials
        Maximum number of trials.
    epochs
        Epochs of the longest training, for ASHA.
    scratch
        Folder for files of Tune; the caller deletes it.
    deadline
        Value of `time.monotonic()` at which trials are stopped.
    """
    with _environment():
        import ray.tune as rt

        # Tune requires a resource: a byte of memory for a trial that reserves no CPU
        resources = {"cpu": share.cpus, "gpu": share.gpus} if share.cpus else {"memory": 1}
        trainable = rt.with_resources(_make_trainable(sweep.scheduler == "asha"), resources)
        config = rt.TuneConfig(
            search_alg=make_searcher(proposals),
            scheduler=_make_scheduler(epochs) if sweep.scheduler == "asha" else None,
            num_samples=n_trials,
            max_concurrent_trials=share.at_once,
            time_budget_s=None if deadline is None else max(1.0, deadline - time.monotonic()),
            reuse_actors=True,  # torch takes seconds to import
        )
        storage, path = scratch.location.open()  # with credentials, which its URI does not have
        run_config = rt.RunConfig(
            name="tune",
            storage_path=path,
            storage_filesystem=storage,
            failure_config=rt.FailureConfig(max_failures=_RETRIES),
            callbacks=[make_recorder(progress, deadline)],
            verbose=0,
        )
        rt.Tuner(trainable, tune_config=config, run_config=run_config).fit()


def _make_trainable(every_epoch: bool) -> Callable[[dict[str, Any]], None]:
    """Make the function that Tune runs in a worker."""

    def trial(config: dict[str, Any]) -> None:
        import ray.tune as rt

        task: Task = config["task"]
        told: dict[str, Any] = {EPOCH: 0, CLARITY: _WORST}

        def on_epoch(history: Any) -> None:
            told.update({EPOCH: history.epochs, CLARITY: _clarity(history.terms)})
            if history.epochs < task.epochs:
                rt.report({**told, VALUE: _WORST})

        try:
            record = run(task, on_epoch if every_epoch else lambda _: None)
        except AncdError as error:
            record = Record(task.id, task.product, task.settings, "failed", str(error).splitlines()[0])
        record.write(task.records)
        rt.report({**told, EPOCH: task.epochs, VALUE: _WORST, "record": record.status, "values": _values(record)})

    return trial


def _clarity(terms: Mapping[str, Any]) -> float:
    return -asha_objective(terms["cls_u"][-1], terms["reg"][-1])


def _values(record: Record) -> dict[str, float | None]:
    return {name: record.best(name) for name in ("nmi", "ari", "f1", "unsupervised")} if record.rows else {}


def _make_scheduler(epochs: int) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    grace = max(1, min(epochs, -(-epochs // _REDUCTION**2)))
    return ASHAScheduler(
        time_attr=EPOCH, metric=CLARITY, mode="max", max_t=epochs + 1, grace_period=grace, reduction_factor=_REDUCTION
    )


@contextmanager
def _environment() -> Iterator[None]:
    """Set the environment variables that configure Tune, unless they are set, while the body runs."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                del os.environ[name]
