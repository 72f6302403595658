"""MLflow: one run a job, a child run a product. Only the driver writes; nothing else imports mlflow."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ancd_ray import bundle
from ancd_ray.errors import AncdError
from ancd_ray.jobfile import CREDENTIALS, resolved
from ancd_ray.pipeline import StepRun
from ancd_ray.plan import JobPlan, ProductPlan
from ancd_ray.reporting import Outputs, outputs_of
from ancd_ray.store import Folder

_RUN_TAG = "ancd_ray.run"  # the run folder's name: a second run of the same job is the same run


class TrackingProblem(AncdError):
    """The tracking server cannot be used; one line."""


def uri_of(plan: JobPlan) -> str | None:
    """The store of a job: its own, else sqlite in the output folder; None where that folder is no local one."""
    if plan.job.tracking.uri:
        return plan.job.tracking.uri
    return f"sqlite:///{plan.root.path / 'mlflow.db'}" if plan.root.is_local else None


def check(uri: str | None) -> None:
    """A quick look before hours of work: a server must answer.

    Raises:
        TrackingProblem: it does not.
    """
    if uri is None or not uri.startswith("http"):
        return
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
    except (urllib.error.URLError, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            return  # it answers; whether it lets us in shows when we log
        raise TrackingProblem(f"tracking.uri: {_hidden(uri)} does not answer: {error}") from error


def log(plan: JobPlan, runs: Sequence[StepRun], summary: Mapping[str, Any], run_folder: Folder) -> None:
    """Logs a finished job, once.

    Raises:
        TrackingProblem: the store refused; the results of the job are not touched by it.
    """
    uri = uri_of(plan)
    if uri is None:
        return
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with _silence():
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            _log(mlflow.MlflowClient(tracking_uri=uri), plan, runs, summary, run_folder)
        except (MlflowException, OSError) as error:
            raise TrackingProblem(f"tracking.uri {_hidden(uri)}: {str(error).splitlines()[0]}") from error


def _log(client: Any, plan: JobPlan, runs: Sequence[StepRun], summary: Mapping[str, Any], run_folder: Folder) -> None:
    experiment = _experiment(client, plan)
    name = run_folder.uri.rpartition("/")[2]
    if client.search_runs(
        [experiment], f"tags.{_q(_RUN_TAG)} = '{name}' and attributes.status = 'FINISHED'", max_results=1
    ):
        return
    parent = client.create_run(experiment, run_name=name, tags={_RUN_TAG: f"{name} (unfinished)"}).info.run_id
    client.log_text(parent, resolved(plan.job), "job.yaml")
    for key, value in _params(plan).items():
        client.log_param(parent, key, value)
    for key in ("images", "regions", "quarantined"):
        client.log_metric(parent, key, summary[key])
    by_product = outputs_of(runs)
    for product in plan.products:
        _log_product(client, experiment, parent, product, by_product[product.name])
    with tempfile.TemporaryDirectory() as scratch:
        for file in ("report.html", "summary.json"):
            path = Path(scratch) / file
            path.write_bytes(run_folder.read(file))
            client.log_artifact(parent, str(path))
    client.set_tag(parent, _RUN_TAG, name)
    client.set_terminated(parent)


def _log_product(client: Any, experiment: str, parent: str, product: ProductPlan, outputs: Outputs) -> None:
    from mlflow.entities import Metric

    name = product.name
    run = client.create_run(experiment, run_name=name, tags={"mlflow.parentRunId": parent, "product": name}).info.run_id
    losses = outputs["train"].values["losses"]
    metrics = [
        Metric(f"loss/{term}", value, 0, epoch) for term, values in losses.items() for epoch, value in enumerate(values)
    ]
    for level, figures in outputs["evaluate"].values.items():
        found = {key: value for key, value in figures.items() if value is not None and math.isfinite(value)}
        metrics += [Metric(f"{level}/{key}", value, 0, 0) for key, value in found.items()]
    for start in range(0, len(metrics), 1000):  # the most that the service takes at once
        client.log_batch(run, metrics=metrics[start : start + 1000])
    with tempfile.TemporaryDirectory() as scratch:
        client.log_artifacts(run, str(bundle.write(product.job, outputs, Path(scratch) / "model")), "model")
    client.set_terminated(run)


def _experiment(client: Any, plan: JobPlan) -> str:
    name = plan.job.tracking.experiment or plan.job.name
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    # without a server of its own, the store's files belong beside the database
    location = (plan.root.path / "mlflow").as_uri() if plan.root.is_local and not plan.job.tracking.uri else None
    return str(client.create_experiment(name, artifact_location=location))


def _params(plan: JobPlan) -> dict[str, str]:
    """The leaves of the job, `train.lambda` and so on; MLflow takes at most 6,000 letters each."""
    flat: dict[str, str] = {}

    def walk(node: Any, where: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{where}.{key}" if where else key)
        else:
            flat[where] = _hidden(str(node))[:500]

    document = plan.job.model_dump(mode="json", by_alias=True)
    document["data"].pop("products")
    walk(document, "")
    return flat | {"products": ", ".join(product.name for product in plan.products)}


def _hidden(text: str) -> str:
    return CREDENTIALS.sub("//***@", text)


def _q(tag: str) -> str:
    return f"`{tag}`"


@contextmanager
def _silence() -> Iterator[None]:
    """MLflow and alembic tell of every table they make; that is not what people wait for."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
