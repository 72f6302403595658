"""Runs in MLflow of jobs of `mode: classify`: one for a job, with a child run for each product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.config.secrets import hide_secrets
from ancd_ray.data.store import Folder
from ancd_ray.jobs.classify.pinned import locate_model
from ancd_ray.jobs.tracking.runs import log_figures, start_child_run, start_parent_run
from ancd_ray.jobs.tracking.served import MODEL_TAG
from ancd_ray.jobs.tracking.store import TrackingStore

SOURCE_TAG = "ancd_ray.model_source"  # where a job has its model from
_COUNTS = ("images", "new", "known", "deleted", "quarantined", "regions")
_SCORES = ("nmi", "ari", "f1")


def log_classification(
    store: TrackingStore,
    job: Job,
    summary: Mapping[str, Any],
    history: Iterable[Mapping[str, Any]],
    run_folder: Folder,
) -> bool:
    """Log a finished job of `mode: classify` to MLflow; returns False if it is logged already.

    Parameters
    ----------
    store
        Where to.
    job
        The job.
    summary
        Content of its `summary.json`.
    history
        Its rows of the published table `runs`, which a rerun does not change; the summary is that of the last run.
    run_folder
        Its run folder.

    Raises
    ------
    TrackingProblem
        The store cannot be used; the results of the job are complete.
    """
    rows = {row["product"]: row for row in history}
    products = [{**found, **rows.get(found["product"], {})} for found in summary["products"]]
    products = [{**each, "known": each["images"] - each["new"]} for each in products]
    with store.connect() as client, start_parent_run(client, store, job, run_folder) as (experiment, parent):
        if not parent:
            return False
        for key in _COUNTS:
            client.log_metric(parent, key, sum(each[key] for each in products))
        if rows:
            client.log_metric(parent, "seconds", max(row["seconds"] for row in rows.values()))
        for each in products:
            client.log_param(parent, f"models.{each['product']}", each["model"])
            _log_product(client, experiment, parent, job, each)
    return True


def _log_product(client: Any, experiment: str, parent: str, job: Job, found: Mapping[str, Any]) -> None:
    name = found["product"]
    run = start_child_run(client, experiment, parent, name, name)
    client.set_tag(run, MODEL_TAG, found["model"])
    if job.model:  # else it is of the discovery of the same job
        client.set_tag(run, SOURCE_TAG, hide_secrets(locate_model(job.model, name)))
    figures = {key: float(found[key]) for key in _COUNTS}
    figures |= {f"classes/{label}": float(count) for label, count in found["classes"].items()}
    log_figures(client, run, {**figures, **{f"image/{key}": found[key] for key in _SCORES}}, {})
    client.set_terminated(run)
