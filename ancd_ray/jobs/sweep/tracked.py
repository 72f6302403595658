"""Tracking of a sweep in MLflow: a parent run, and a child run per trial with settings, losses and best figures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.config.overrides import override
from ancd_ray.config.registration import RegisterConfig
from ancd_ray.data.location import StoreError
from ancd_ray.data.roles import make_class_ids
from ancd_ray.data.store import Folder
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs import tracking
from ancd_ray.jobs.plan import ProductPlan
from ancd_ray.jobs.sweep.results import Results
from ancd_ray.jobs.sweep.trial import Record
from ancd_ray.jobs.tracking import TrackingStore
from ancd_ray.models.model import Model

FILES = ("report.html", "summary.json", "sweep.csv", "sweep.parquet")


def log(store: TrackingStore, results: Results, folder: Folder) -> bool:
    """Log a sweep to MLflow; returns False if it has trials left or is logged already.

    Raises
    ------
    TrackingProblem
        MLflow reported an error; the results of the sweep are complete.
    """
    if results.left:
        return False
    job = results.space.plan.job
    with (
        store.connect() as client,
        tracking.start_parent_run(client, store, job, folder, FILES) as (experiment, parent),
    ):
        if not parent:
            return False
        metric = results.space.metric
        best = {plan.name: results.best(plan.name) for plan in results.space.plan.products}
        for product, row in best.items():
            if row:
                client.log_metric(parent, f"best/{product}/{metric}", row[metric])
        for record in results.records:
            row = best[record.product]
            _log_trial(client, experiment, parent, results, record, row if row and row["trial"] == record.id else None)
    return True


def _log_trial(
    client: Any, experiment: str, parent: str, results: Results, record: Record, chosen: Mapping[str, Any] | None
) -> None:
    """Log a trial as a child run, with the model if it is the best of its product (`chosen`: its row, else None)."""
    said = " ".join(f"{key.rpartition('.')[2]}={_format_value(value)}" for key, value in record.settings.items())
    run = tracking.start_child_run(client, experiment, parent, f"{record.product} {said}".strip(), record.product)
    metric = results.space.metric
    rows = [row for row in results.rows if row["trial"] == record.id and row[metric] is not None]
    best = max(rows, key=lambda row: float(row[metric]), default=None)
    merged = {key: best[key] for key in results.space.merged} if best else {}
    for key, value in {**record.settings, **merged}.items():
        client.log_param(run, key, value)
    client.set_tag(run, "status", record.status)
    if record.reason:
        client.set_tag(run, "reason", record.reason)
    if best:
        artifacts, plan = _find_artifacts(results, record)
        figures = {f"image/{name}": best[name] for name in ("nmi", "ari", "f1", "unsupervised")}
        tracking.log_figures(client, run, figures, artifacts.figures("trained").get("losses", {}))
        if chosen:
            own = override(plan.job, {key: chosen[key] for key in results.space.merged}, "sweep.parameters")
            found = artifacts.files("classifier").values
            ids = make_class_ids(plan.name, found["n_novel"], found["has_normal"])
            logged = tracking.log_model(client, run, Model.of(own, plan.name, artifacts, ids))
            job = results.space.job
            if asked := job.tracking.register_ or (RegisterConfig() if results.space.sweep.register_best else None):
                make_card = partial(_make_card, own, results, plan.name, logged, artifacts, chosen)
                tracking.add_version(client, asked.name_model(job.name, plan.name), logged, make_card, asked.alias)
    client.set_terminated(run, "FAILED" if record.status == "failed" else "FINISHED")


def _make_card(
    job: Job,
    results: Results,
    product: str,
    logged: tracking.LoggedModel,
    artifacts: ArtifactSet,
    chosen: Mapping[str, Any],
) -> tracking.Card:
    """Make the card of the best model of a product; `chosen` is its row of the sweep."""
    return tracking.make_card(
        job,
        results.space.folder.uri.rpartition("/")[2],
        product,
        logged.model,
        artifacts.table("listing").read(["role"]).column("role").to_pylist().count("query"),
        {"nmi": chosen["nmi"], "ari": chosen["ari"], "f1": chosen["f1"], "silhouette": chosen["unsupervised"]},
        artifacts.table("region_predictions").read(list(tracking.COLUMNS)),
        artifacts.table("regions"),
    )


def _find_artifacts(results: Results, record: Record) -> tuple[ArtifactSet, ProductPlan]:
    """Find the artifacts of the finished steps of a trial, and its plan.

    Raises
    ------
    StoreError
        Results that its model is made of were deleted.
    """
    trial = results.space.trial(record.product, record.settings)
    plan, root = trial.plan, results.space.plan.root
    if not all(Output.find(step.folder(root)) for step in trial.own_steps):
        raise StoreError(f"{results.space.folder}: steps of this sweep are no longer in {root}; submit it again")
    found = {}
    for role, ref in plan.flow.artifacts.items():
        if output := Output.find(ref.step.folder(root)):
            found[role] = ref.bind(output)
    return ArtifactSet(found), plan


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
