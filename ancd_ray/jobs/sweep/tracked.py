"""A sweep in MLflow: the sweep is the parent run, each trial a child with its settings, curves and best figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ancd_ray.config.overrides import overridden
from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs import tracking
from ancd_ray.jobs.plan import ProductPlan
from ancd_ray.jobs.sweep.results import Results
from ancd_ray.jobs.sweep.trial import Record

FILES = ("report.html", "summary.json", "sweep.csv", "sweep.parquet")


def log(results: Results, folder: Folder) -> None:
    """Logs a finished sweep, once; a sweep with trials left waits for the run that ends it.

    Raises:
        TrackingProblem: the store refused; the results are not touched by it.
    """
    if results.left:
        return
    with tracking.connected(results.space.plan) as client:
        if client:
            _log(client, results, folder)


def _log(client: Any, results: Results, folder: Folder) -> None:
    with tracking.parent_run(client, results.space.plan, folder, FILES) as (experiment, parent):
        if not parent:
            return
        metric = results.space.metric
        best = {plan.name: results.best(plan.name) for plan in results.space.plan.products}
        for product, row in best.items():
            if row:
                client.log_metric(parent, f"best/{product}/{metric}", row[metric])
        for record in results.records:
            row = best[record.product]
            _log_trial(client, experiment, parent, results, record, row if row and row["trial"] == record.id else None)


def _log_trial(
    client: Any, experiment: str, parent: str, results: Results, record: Record, chosen: Mapping[str, Any] | None
) -> None:
    """The run of a trial; with the model if it is the best of its product (`chosen`: its row)."""
    said = " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in record.settings.items())
    run = tracking.child_run(client, experiment, parent, f"{record.product} {said}".strip(), record.product)
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
        outputs, plan = _outputs(results, record)
        figures = {f"image/{name}": best[name] for name in ("nmi", "ari", "f1", "unsupervised")}
        tracking.log_figures(client, run, figures, outputs["train"].values["losses"])
        if chosen:
            own = overridden(plan.job, {key: chosen[key] for key in results.space.merged}, "sweep.parameters")
            source = tracking.log_model(client, run, replace(plan, job=own), outputs)
            if results.space.sweep.register_best:
                name = f"{results.space.job.name}.{record.product}"
                tracking.register(client, name, source, run, {metric: f"{chosen[metric]:.4f}"})
    client.set_terminated(run, "FAILED" if record.status == "failed" else "FINISHED")


def _outputs(results: Results, record: Record) -> tuple[dict[str, Output], ProductPlan]:
    """The results of a trial's steps by name."""
    plan = results.space.trial(record.product, record.settings).plan
    found = {name: Output.find(step.folder(results.space.plan.root)) for name, step in plan.steps.items()}
    return {name: output for name, output in found.items() if output}, plan


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
