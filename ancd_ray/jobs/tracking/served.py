"""Models in MLflow: a pyfunc as an artifact of a run, and the download of registered ones."""

from __future__ import annotations

import base64
import importlib.util
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ancd_ray.data.store import Folder
from ancd_ray.engine.versions import LIBRARIES, read_versions
from ancd_ray.jobs.classify.pinned import PinnedModel, pin_model
from ancd_ray.jobs.tracking.store import RegistryAway, TrackingProblem, explain, prepare_mlflow, split_credentials
from ancd_ray.models.format import DOCUMENT

if TYPE_CHECKING:
    from ancd_ray.models.model import Model

MODEL_TAG = "ancd_ray.model"  # of runs and registered versions: digest of a model
SERVED = tuple(name for name in LIBRARIES if name != "ray")  # libraries that predictions depend on
_ANSWERS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what a registry says of an unknown model


@dataclass(frozen=True)
class LoggedModel:
    """A model as an artifact of a run: id of the run, URI of the artifact, and what the model is."""

    run: str
    source: str
    model: PinnedModel

    @property
    def digest(self) -> str:
        """The digest of its content."""
        return self.model.digest


def log_model(client: Any, run: str, model: Model) -> LoggedModel:
    """Log the model of a product as the artifact `model`, a pyfunc, and its digest as a tag."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model"
        save_pyfunc(model, path)
        pinned = pin_model(str(next(path.rglob(DOCUMENT)).parent), model.product)
        client.log_artifacts(run, str(path), "model")
    client.set_tag(run, MODEL_TAG, pinned.digest)
    return LoggedModel(run, locate_artifact(client, run), pinned)


def locate_artifact(client: Any, run: str) -> str:
    """Return the URI of the model among the artifacts of a run."""
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


def download_model(uri: str, registry: str | None = None) -> Path:
    """Download a model of MLflow's registry (`models:/name@alias`) and return its folder.

    Parameters
    ----------
    uri
        URI of the model.
    registry
        Tracking server or database whose registry has it; None: `MLFLOW_TRACKING_URI`.

    Raises
    ------
    TrackingProblem
        There is no such model, nobody says which registry, or (RegistryAway) the server does not answer.
    """
    place = registry or os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI")
    if not place:  # MLflow would make an empty database in the working directory
        raise TrackingProblem(f"{uri}: which registry? set tracking.uri of the job, or MLFLOW_TRACKING_URI")
    place, credentials = split_credentials(place)
    with prepare_mlflow(credentials):
        import mlflow

        try:
            found_at = mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=place, registry_uri=place)
            folder = Path(found_at)
        except Exception as error:  # of MLflow, of requests, of SQLAlchemy
            is_answer = getattr(error, "error_code", None) in _ANSWERS
            raise (TrackingProblem if is_answer else RegistryAway)(f"{uri}: {explain(error)}") from error
    found = sorted(folder.rglob(DOCUMENT))
    if not found:
        raise TrackingProblem(f"{uri}: it holds no model of ancd-ray")
    return found[0].parent
