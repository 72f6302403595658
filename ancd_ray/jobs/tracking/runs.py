"""Runs in MLflow: one for a job, with a child run for each product."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ancd_ray.config.job import OF_THE_MODEL, Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.config.secrets import hide_secrets
from ancd_ray.data.store import Folder
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.jobs.results import JobResults
from ancd_ray.jobs.tracking.discovery import Discovery, open_discovery, read_card
from ancd_ray.jobs.tracking.registry import add_version
from ancd_ray.jobs.tracking.served import LoggedModel, locate_artifact, log_model
from ancd_ray.jobs.tracking.store import TrackingStore

_RUN_TAG = "ancd_ray.run"  # name of the run folder, by which a repeated run of a job is recognized


def log(
    store: TrackingStore,
    job: Job,
    results: JobResults,
    summary: Mapping[str, Any],
    run_folder: Folder,
    say: Callable[[str], None] = lambda _: None,
) -> bool:
    """Log a finished job to MLflow, and register its models if it asks for that; returns False if it is logged already.

    Parameters
    ----------
    store
        Where to.
    job
        The job.
    results, summary, run_folder
        What the job left.
    say
        Is called with a line for each registered model.

    Raises
    ------
    TrackingProblem
        The store cannot be used; the results of the job are complete.
    """
    with store.connect() as client:
        with start_parent_run(client, store, job, run_folder) as (experiment, parent):
            if parent:
                for key in ("images", "regions", "quarantined"):
                    client.log_metric(parent, key, summary[key])
                for name, artifacts in results.products.items():
                    _log_product(client, experiment, parent, name, artifacts, run_folder)
        if asked := job.tracking.register_:
            for name in results.products:
                run = open_discovery(run_folder, name)
                model = find_logged(client, experiment, run)
                assert model, "it was logged above, or before"
                registered, make_card = asked.name_model(job.name, name), partial(read_card, run, results)
                version = add_version(client, registered, model, make_card, asked.alias, keep_moved=True)
                say(f"{name}: {version.describe()}")
    return bool(parent)


def find_logged(client: Any, experiment: str, run: Discovery) -> LoggedModel | None:
    """Find the model of a discovery among the artifacts of logged runs; None if it is not logged there."""
    parents = client.search_runs([experiment], _select_finished(run.name), max_results=1)
    if not parents:
        return None
    of_parent = f"tags.{_quote('mlflow.parentRunId')} = '{parents[0].info.run_id}' and tags.product = '{run.product}'"
    children = client.search_runs([experiment], of_parent, max_results=1)
    if not children:
        return None
    child = children[0].info.run_id
    return LoggedModel(child, locate_artifact(client, child), run.model)


@contextmanager
def start_parent_run(
    client: Any,
    store: TrackingStore,
    job: Job,
    run_folder: Folder,
    files: Sequence[str] = ("report.html", "summary.json"),
) -> Iterator[tuple[str, str | None]]:
    """Create the run of a job and finish it after the body; yields the ids of its experiment and of the run.

    The id of the run is None if a finished run of the same name exists already.
    """
    experiment = get_experiment(client, store, job)
    name = run_folder.uri.rpartition("/")[2]
    if client.search_runs([experiment], _select_finished(name), max_results=1):
        yield experiment, None
        return
    parent = client.create_run(experiment, run_name=name, tags={_RUN_TAG: f"{name} (unfinished)"}).info.run_id
    client.log_text(parent, dump_resolved(job), "job.yaml")
    for key, value in _flatten_job(job).items():
        client.log_param(parent, key, value)
    yield experiment, parent
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            path = Path(scratch) / file
            path.write_bytes(run_folder.read(file))
            client.log_artifact(parent, str(path))
    client.set_tag(parent, _RUN_TAG, name)
    client.set_terminated(parent)


def _log_product(
    client: Any, experiment: str, parent: str, name: str, artifacts: ArtifactSet, run_folder: Folder
) -> None:
    run = start_child_run(client, experiment, parent, name, name)
    figures = {
        f"{level}/{key}": value
        for level, values in artifacts.figures("metrics").items()
        for key, value in values.items()
    }
    log_figures(client, run, figures, artifacts.figures("trained").get("losses", {}))
    from ancd_ray.models.model import Model

    log_model(client, run, Model.load(str(run_folder / "models" / name)))
    client.set_terminated(run)


def start_child_run(client: Any, experiment: str, parent: str, name: str, product: str) -> str:
    """Create a child run for a product and return its id."""
    tags = {"mlflow.parentRunId": parent, "product": product}
    return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)


def log_figures(
    client: Any, run: str, figures: Mapping[str, float | None], losses: Mapping[str, Sequence[float]]
) -> None:
    """Log the figures that are finite, and the losses by epoch."""
    from mlflow.entities import Metric

    metrics = [
        Metric(f"loss/{term}", value, 0, epoch) for term, values in losses.items() for epoch, value in enumerate(values)
    ]
    known = {key: value for key, value in figures.items() if value is not None and math.isfinite(value)}
    metrics += [Metric(key, value, 0, 0) for key, value in known.items()]
    for start in range(0, len(metrics), 1000):  # limit of the service
        client.log_batch(run, metrics=metrics[start : start + 1000])


def get_experiment(client: Any, store: TrackingStore, job: Job) -> str:
    """Return the id of the experiment of a job, which is created if there is none."""
    name = job.tracking.experiment or job.name
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=store.artifacts))


def _flatten_job(job: Job) -> dict[str, str]:
    """Flatten the job to parameters such as `train.lambda`; values are cut to 500 characters (MLflow allows 6,000)."""
    flat: dict[str, str] = {}

    def walk(node: Any, where: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{where}.{key}" if where else key)
        else:
            flat[where] = hide_secrets(str(node))[:500]

    left_out = set(OF_THE_MODEL) if job.mode == "classify" else set()
    document = job.model_dump(mode="json", by_alias=True, exclude=left_out)
    document["data"].pop("products")
    walk(document, "")
    return flat | {"products": ", ".join(product.name for product in job.data.products)}


def _select_finished(name: str) -> str:
    return f"tags.{_quote(_RUN_TAG)} = '{name}' and attributes.status = 'FINISHED'"


def _quote(tag: str) -> str:
    return f"`{tag}`"
