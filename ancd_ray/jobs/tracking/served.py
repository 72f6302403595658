"""Models in MLflow: a pyfunc as an artifact of a run, registered versions, and their download."""

from __future__ import annotations

import base64
import importlib.util
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ancd_ray.data.store import Folder
from ancd_ray.engine.versions import LIBRARIES, read_versions
from ancd_ray.jobs.tracking.store import RegistryAway, TrackingProblem, explain, prepare_mlflow

if TYPE_CHECKING:
    from ancd_ray.models.model import Model

SERVED = tuple(name for name in LIBRARIES if name != "ray")  # libraries that predictions depend on
_ANSWERS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what a registry says of an unknown model


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
    from mlflow.types.schema import ColSpec, Schema

    from ancd_ray.data.images import encode_png

    columns = [ColSpec("string", name, required=name == "image") for name in ("image", "name", "mask", "anomaly_map")]
    answers = [ColSpec("string", "image"), ColSpec("string", "prediction")]
    black = base64.b64encode(encode_png(np.zeros((64, 64, 3), np.uint8))).decode()
    example = pd.DataFrame([{"image": black, "name": "black.png"}])
    code = importlib.util.find_spec("ancd_ray.models.pyfunc")
    assert code is not None
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        # MLflow suggests type hints, for its own classes when they are imported too, with a filter that shows it
        from mlflow.pyfunc import save_model

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
        There is no such model, or (RegistryAway) the server does not answer.
    """
    with prepare_mlflow():
        import mlflow

        try:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        except Exception as error:  # of MLflow, of requests, of SQLAlchemy
            is_answer = getattr(error, "error_code", None) in _ANSWERS
            raise (TrackingProblem if is_answer else RegistryAway)(f"{uri}: {explain(error)}") from error
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
