"""Tracks finished runs later, from their folders: those that no server took when they ended."""

from __future__ import annotations

from collections.abc import Callable

from ancd_ray.config.job import Job
from ancd_ray.config.load import parse, validate
from ancd_ray.data.location import StoreError
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from ancd_ray.jobs.results import locate_root, open_run, read_record


def track(run_folder: Folder, uri: str | None = None, say: Callable[[str], None] = lambda _: None) -> tuple[str, bool]:
    """Log a finished run of either mode, or a finished sweep, to MLflow.

    Parameters
    ----------
    run_folder
        Folder that `ancd-ray submit` printed.
    uri
        Tracking server or database; None: that of the job, with the credentials of the environment.
    say
        Is called with one line if it takes time to find out whether a job is writing there.

    Returns
    -------
    place : str
        Where it is tracked.
    is_new : bool
        False if it was tracked there already.

    Raises
    ------
    StoreError
        The folder is not that of a finished run.
    TrackingProblem
        The store cannot be used.
    """
    if run_folder.exists("sweep.parquet"):
        return _track_sweep(run_folder, uri, say)
    if (read_record(run_folder) or {}).get("mode") == "classify":
        return _track_classification(run_folder, uri, say)
    job, results = open_run(run_folder)
    store = _find_store(job, run_folder, uri)
    with lock_folder(locate_root(run_folder), say):
        is_new = tracking.log(store, job, results, run_folder.read_json("summary.json"), run_folder)
    return str(store), is_new


def _track_classification(run_folder: Folder, uri: str | None, say: Callable[[str], None]) -> tuple[str, bool]:
    from ancd_ray.jobs.classify.runs import read_run

    job, root = validate(parse(run_folder.read("job.yaml"), f"{run_folder}/job.yaml")), locate_root(run_folder)
    summary, history = run_folder.read_json("summary.json"), read_run(root, run_folder)
    store = _find_store(job, run_folder, uri)
    with lock_folder(root, say):
        return str(store), tracking.log_classification(store, job, summary, history, run_folder)


def _track_sweep(run_folder: Folder, uri: str | None, say: Callable[[str], None]) -> tuple[str, bool]:
    from ancd_ray.jobs.sweep import results, tracked
    from ancd_ray.jobs.sweep.planning import build_search_space
    from ancd_ray.jobs.sweep.trial import Record, read_records

    job = validate(parse(run_folder.read("job.yaml"), f"{run_folder}/job.yaml"))
    job = job.model_copy(update={"output": locate_root(run_folder).uri})  # it may have moved
    space = build_search_space(job)
    if space.folder.uri != run_folder.uri:
        raise StoreError(f"{run_folder}: the archive has changed since this sweep; submit it again")
    known = read_records(space.records)
    reasons = {row["trial"]: row["reason"] for row in run_folder.read_table("sweep.parquet").to_pylist()}
    failed = [  # before they trained, so they have no record
        Record(trial.id, trial.plan.name, trial.settings, "failed", reasons[trial.id])
        for trial in space.trials
        if trial.id in reasons and trial.id not in known
    ]
    found = results.Results(space, [*known.values(), *failed], 0.0)
    if found.left:
        raise StoreError(f"{run_folder}: {found.left} trials are left; submit it again, which goes on and tracks it")
    store = _find_store(job, run_folder, uri)
    with lock_folder(space.plan.root, say):
        return str(store), tracked.log(store, found, run_folder)


def _find_store(job: Job, run_folder: Folder, uri: str | None) -> tracking.TrackingStore:
    if uri:
        job = job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": uri})})
    store = tracking.find_store(job, locate_root(run_folder))
    if store is None:
        raise tracking.TrackingProblem(f"{run_folder} is no local folder; give --uri of a tracking server")
    store.check()
    return store
