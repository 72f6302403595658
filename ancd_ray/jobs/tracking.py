"""Tracking in MLflow: a run per job, with a child run per product; only the driver writes."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ancd_ray.config.errors import AncdError
from ancd_ray.config.load import dump_resolved
from ancd_ray.config.secrets import hide_secrets
from ancd_ray.data.store import Folder
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.engine.executor import read_versions
from ancd_ray.jobs.plan import JobPlan, ProductPlan
from ancd_ray.jobs.results import JobResults

if TYPE_CHECKING:
    from ancd_ray.models.model import Model

# libraries that predictions depend on
SERVED = (
    "ancd-ray",
    "torch",
    "timm",
    "numpy",
    "pyarrow",
    "opencv-python-headless",
    "openvino",
    "scikit-learn",
    "mlflow",
)
_RUN_TAG = "ancd_ray.run"  # name of the run folder, by which a repeated run of a job is recognized


class TrackingProblem(AncdError):
    """The tracking server cannot be used; the message is one line."""


def resolve_uri(plan: JobPlan) -> str | None:
    """Return `tracking.uri`, or else an sqlite file in the output folder; None if that folder is not local."""
    if plan.job.tracking.uri:
        return plan.job.tracking.uri
    return f"sqlite:///{plan.root.path / 'mlflow.db'}" if plan.root.is_local else None


def check_server(uri: str | None) -> None:
    """Check that a tracking server answers, before hours of work.

    Raises
    ------
    TrackingProblem
        It does not answer.
    """
    if uri is None or not uri.startswith("http"):
        return
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
    except (urllib.error.URLError, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            return  # it answers; authorization is checked when the job is logged
        raise TrackingProblem(f"tracking.uri: {hide_secrets(uri)} does not answer: {error}") from error


def log(plan: JobPlan, results: JobResults, summary: Mapping[str, Any], run_folder: Folder) -> None:
    """Log a finished job to MLflow, unless it is logged already.

    Raises
    ------
    TrackingProblem
        MLflow reported an error; the results of the job are complete.
    """
    with connect(plan) as client:
        if client:
            _log(client, plan, results, summary, run_folder)


@contextmanager
def connect(plan: JobPlan) -> Iterator[Any]:
    """Connect to the tracking store of a job; yields an `MlflowClient`, or None if the job has no store.

    Raises
    ------
    TrackingProblem
        MLflow reported an error in the body.
    """
    uri = resolve_uri(plan)
    if uri is None:
        yield None
        return
    _quiet_environment()
    with _silence():
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            yield mlflow.MlflowClient(tracking_uri=uri)
        except (MlflowException, OSError) as error:
            raise TrackingProblem(f"tracking.uri {hide_secrets(uri)}: {str(error).splitlines()[0]}") from error


def _log(client: Any, plan: JobPlan, results: JobResults, summary: Mapping[str, Any], run_folder: Folder) -> None:
    with start_parent_run(client, plan, run_folder) as (experiment, parent):
        if not parent:
            return
        for key in ("images", "regions", "quarantined"):
            client.log_metric(parent, key, summary[key])
        for product in plan.products:
            _log_product(client, experiment, parent, product, results.products[product.name])


@contextmanager
def start_parent_run(
    client: Any, plan: JobPlan, run_folder: Folder, files: Sequence[str] = ("report.html", "summary.json")
) -> Iterator[tuple[str, str | None]]:
    """Create the run of a job and finish it after the body; yields the ids of its experiment and of the run.

    The id of the run is None if a finished run of the same name exists already.
    """
    experiment = _get_experiment(client, plan)
    name = run_folder.uri.rpartition("/")[2]
    if client.search_runs(
        [experiment], f"tags.{_quote(_RUN_TAG)} = '{name}' and attributes.status = 'FINISHED'", max_results=1
    ):
        yield experiment, None
        return
    parent = client.create_run(experiment, run_name=name, tags={_RUN_TAG: f"{name} (unfinished)"}).info.run_id
    client.log_text(parent, dump_resolved(plan.job), "job.yaml")
    for key, value in _flatten_job(plan).items():
        client.log_param(parent, key, value)
    yield experiment, parent
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            path = Path(scratch) / file
            path.write_bytes(run_folder.read(file))
            client.log_artifact(parent, str(path))
    client.set_tag(parent, _RUN_TAG, name)
    client.set_terminated(parent)


def _log_product(client: Any, experiment: str, parent: str, product: ProductPlan, artifacts: ArtifactSet) -> None:
    run = start_child_run(client, experiment, parent, product.name, product.name)
    figures = {
        f"{level}/{key}": value
        for level, values in artifacts.figures("metrics").items()
        for key, value in values.items()
    }
    log_figures(client, run, figures, artifacts.figures("trained").get("losses", {}))
    from ancd_ray.models.model import Model

    log_model(client, run, Model.of(product.job, product.name, artifacts))
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


def log_model(client: Any, run: str, model: Model) -> str:
    """Log the model of a product as the artifact `model`, a pyfunc; returns its URI."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model"
        save_pyfunc(model, path)
        client.log_artifacts(run, str(path), "model")
    return f"{client.get_run(run).info.artifact_uri}/model"


def save_pyfunc(model: Model, path: Path) -> None:
    """Save a model as an MLflow pyfunc, for `mlflow models serve`."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types.schema import ColSpec, Schema

    from ancd_ray.data.images import encode_png

    columns = [ColSpec("string", name, required=name == "image") for name in ("image", "name", "mask", "anomaly_map")]
    answers = [ColSpec("string", "image"), ColSpec("string", "prediction")]
    black = base64.b64encode(encode_png(np.zeros((64, 64, 3), np.uint8))).decode()
    example = pd.DataFrame([{"image": black, "name": "black.png"}])
    code = importlib.util.find_spec("ancd_ray.models.pyfunc")
    assert code is not None
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow suggests type hints, although there is a signature
        folder = Path(scratch) / "model"
        model.save(Folder(str(folder)))
        save_model(
            path,
            python_model=code.origin,
            artifacts={"model": str(folder)},
            signature=ModelSignature(Schema(columns), Schema(answers)),
            input_example=example,
            pip_requirements=list_requirements(),
        )


def list_requirements() -> list[str]:
    """List the packages that a served model needs, with their versions."""
    installed = read_versions()
    return [f"{name}=={installed[name]}" for name in SERVED if name in installed]


def download_model(uri: str) -> Path:
    """Download a model of MLflow's registry (`models:/name@alias`) and return its folder.

    Raises
    ------
    TrackingProblem
        There is no such model, or the server does not answer.
    """
    _quiet_environment()
    with _silence():
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        except (MlflowException, OSError) as error:
            raise TrackingProblem(f"{uri}: {str(error).splitlines()[0]}") from error
    found = sorted(folder.rglob("model.json"))
    if not found:
        raise TrackingProblem(f"{uri}: it holds no model of ancd-ray")
    return found[0].parent


def register(client: Any, name: str, source: str, run: str, tags: Mapping[str, str]) -> int:
    """Register the model of a run and make it the `champion`; an existing version of the run is reused."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    known = [v for v in client.search_model_versions(f"name = '{name}'") if v.run_id == run and v.source == source]
    if known:
        version = known[0].version
    else:
        version = client.create_model_version(name, source, run_id=run, tags=dict(tags)).version
    client.set_registered_model_alias(name, "champion", version)
    return int(version)


def _get_experiment(client: Any, plan: JobPlan) -> str:
    name = plan.job.tracking.experiment or plan.job.name
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    # without a server, artifacts are stored next to the database
    location = (plan.root.path / "mlflow").as_uri() if plan.root.is_local and not plan.job.tracking.uri else None
    return str(client.create_experiment(name, artifact_location=location))


def _flatten_job(plan: JobPlan) -> dict[str, str]:
    """Flatten the job to parameters such as `train.lambda`; values are cut to 500 characters (MLflow allows 6,000)."""
    flat: dict[str, str] = {}

    def walk(node: Any, where: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{where}.{key}" if where else key)
        else:
            flat[where] = hide_secrets(str(node))[:500]

    document = plan.job.model_dump(mode="json", by_alias=True)
    document["data"].pop("products")
    walk(document, "")
    return flat | {"products": ", ".join(product.name for product in plan.products)}


def _quiet_environment() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def _quote(tag: str) -> str:
    return f"`{tag}`"


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the messages of MLflow and alembic, which report every table that they create."""
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
