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

from ancd_ray.config.errors import AncdError
from ancd_ray.config.load import CREDENTIALS, resolved
from ancd_ray.data.store import Folder
from ancd_ray.engine.executor import StepRun
from ancd_ray.jobs.plan import JobPlan, ProductPlan
from ancd_ray.jobs.report.build import Outputs, outputs_of
from ancd_ray.models import bundle

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
    with connected(plan) as client:
        if client:
            _log(client, plan, runs, summary, run_folder)


@contextmanager
def connected(plan: JobPlan) -> Iterator[Any]:
    """A client of the job's store; None where it has no store.

    Raises:
        TrackingProblem: the store refused.
    """
    uri = uri_of(plan)
    if uri is None:
        yield None
        return
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with _silence():
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            yield mlflow.MlflowClient(tracking_uri=uri)
        except (MlflowException, OSError) as error:
            raise TrackingProblem(f"tracking.uri {_hidden(uri)}: {str(error).splitlines()[0]}") from error


def _log(client: Any, plan: JobPlan, runs: Sequence[StepRun], summary: Mapping[str, Any], run_folder: Folder) -> None:
    with parent_run(client, plan, run_folder) as (experiment, parent):
        if not parent:
            return
        for key in ("images", "regions", "quarantined"):
            client.log_metric(parent, key, summary[key])
        by_product = outputs_of(runs)
        for product in plan.products:
            _log_product(client, experiment, parent, product, by_product[product.name])


@contextmanager
def parent_run(
    client: Any, plan: JobPlan, run_folder: Folder, files: Sequence[str] = ("report.html", "summary.json")
) -> Iterator[tuple[str, str | None]]:
    """The experiment and the run of a job, finished when the body is done; no run if it is there already."""
    experiment = _experiment(client, plan)
    name = run_folder.uri.rpartition("/")[2]
    if client.search_runs(
        [experiment], f"tags.{_q(_RUN_TAG)} = '{name}' and attributes.status = 'FINISHED'", max_results=1
    ):
        yield experiment, None
        return
    parent = client.create_run(experiment, run_name=name, tags={_RUN_TAG: f"{name} (unfinished)"}).info.run_id
    client.log_text(parent, resolved(plan.job), "job.yaml")
    for key, value in _params(plan).items():
        client.log_param(parent, key, value)
    yield experiment, parent
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            path = Path(scratch) / file
            path.write_bytes(run_folder.read(file))
            client.log_artifact(parent, str(path))
    client.set_tag(parent, _RUN_TAG, name)
    client.set_terminated(parent)


def _log_product(client: Any, experiment: str, parent: str, product: ProductPlan, outputs: Outputs) -> None:
    run = child_run(client, experiment, parent, product.name, product.name)
    figures = {
        f"{level}/{key}": value for level, values in outputs["evaluate"].values.items() for key, value in values.items()
    }
    log_figures(client, run, figures, outputs["train"].values["losses"])
    log_model(client, run, product, outputs)
    client.set_terminated(run)


def child_run(client: Any, experiment: str, parent: str, name: str, product: str) -> str:
    """A run below another, for a product."""
    tags = {"mlflow.parentRunId": parent, "product": product}
    return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)


def log_figures(
    client: Any, run: str, figures: Mapping[str, float | None], losses: Mapping[str, Sequence[float]]
) -> None:
    """Figures that exist, and the curves of the losses by epoch."""
    from mlflow.entities import Metric

    metrics = [
        Metric(f"loss/{term}", value, 0, epoch) for term, values in losses.items() for epoch, value in enumerate(values)
    ]
    known = {key: value for key, value in figures.items() if value is not None and math.isfinite(value)}
    metrics += [Metric(key, value, 0, 0) for key, value in known.items()]
    for start in range(0, len(metrics), 1000):  # the most that the service takes at once
        client.log_batch(run, metrics=metrics[start : start + 1000])


def log_model(client: Any, run: str, product: ProductPlan, outputs: Outputs) -> str:
    """The model bundle of a product as the artifact `model`; returns where it is."""
    with tempfile.TemporaryDirectory() as scratch:
        client.log_artifacts(run, str(bundle.write(product.job, outputs, Path(scratch) / "model")), "model")
    return f"{client.get_run(run).info.artifact_uri}/model"


def register(client: Any, name: str, source: str, run: str, tags: Mapping[str, str]) -> int:
    """A new version of a registered model, which becomes its `champion`; one that the run has registered stays."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    version = client.create_model_version(name, source, run_id=run, tags=dict(tags)).version
    client.set_registered_model_alias(name, "champion", version)
    return int(version)


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
