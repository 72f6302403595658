"""Tracks finished runs later, from their folders, and registers their models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ancd_ray.config.job import Job
from ancd_ray.config.load import parse, validate
from ancd_ray.config.registration import RegisterConfig
from ancd_ray.data.location import StoreError
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from ancd_ray.jobs.results import JobResults, locate_root, open_job, open_run, read_record


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
        return str(store), _log(store, job, results, run_folder)


def register(
    run_folder: Folder,
    product: str | None,
    name: str | None,
    alias: str,
    uri: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[tracking.Version, str]:
    """Register the model of a finished discovery, which is logged first if it is not yet.

    Parameters
    ----------
    run_folder
        Folder that `ancd-ray submit` printed.
    product
        Product of the run; required if there are several.
    name
        Name of the registered model; None: that of `tracking.register` of the job, or else <job>.<product>.
    alias
        Alias of the version.
    uri, say
        As in `track`.

    Returns
    -------
    version : Version
        The version; a model that is registered already is the version it was.
    place : str
        Where it is registered.

    Raises
    ------
    StoreError, ModelError, JobError
        The folder is that of no discovery, or its model cannot be used.
    TrackingProblem
        The store cannot be used, or the run is not logged and its results were deleted.
    """
    run, root = tracking.open_discovery(run_folder, product), locate_root(run_folder)
    store = _find_store(run.job, run_folder, uri)
    named = RegisterConfig(name=name) if name else run.job.tracking.register_ or RegisterConfig()
    with lock_folder(root, say):
        results = JobResults.from_record(root, read_record(run_folder) or {})
        if results:
            _log(store, open_job(run_folder), results, run_folder)
        with store.connect() as client:
            model = tracking.find_logged(client, tracking.get_experiment(client, store, run.job), run)
            if model is None:
                raise tracking.TrackingProblem(
                    f"{run_folder}: is not tracked in {store}, and its steps are no longer in {root}; "
                    "submit the job again"
                )
            make_card = partial(tracking.read_card, run, results)
            full_name = named.name_model(run.job.name, run.product)
            return tracking.add_version(client, full_name, model, make_card, alias), str(store)


def _log(store: tracking.TrackingStore, job: Job, results: JobResults, run_folder: Folder) -> bool:
    return tracking.log(store, job, results, run_folder.read_json("summary.json"), run_folder)


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
