"""Jobs as functions, for notebooks and programs: a folder of images becomes a finished run, or predictions.

Whatever goes wrong and can be fixed is an `AncdError` with one line a problem, as on the command line.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from ancd_ray.config.errors import AncdError
from ancd_ray.config.load import JobError, load, validate
from ancd_ray.config.secrets import hide_secrets
from ancd_ray.data.store import Folder
from ancd_ray.models.find import find_model
from ancd_ray.models.format import DOCUMENT

if TYPE_CHECKING:
    from ancd_ray.config.job import Job
    from ancd_ray.jobs.frames import Results
    from ancd_ray.jobs.in_memory import Image, Predictions
    from ancd_ray.models.model import Model

    AnyModel: TypeAlias = "Model | Results | str | Path"


def discover(
    source: str | Path | Mapping[str, Any],
    *,
    classes: int | Literal["auto", "from_labels"] | None = None,
    detector: Literal["patchcore", "musc", "ground_truth", "precomputed", "graph"] | None = None,
    normals: str | None = None,
    masks: str | Sequence[str] | None = None,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    address: str | None = None,
    progress: bool = True,
) -> Results:
    """Discover the classes of the anomalies in a folder of images.

    A folder gets the job that `ancd-ray init` drafts for it: its layout is recognized, and frozen features are
    clustered (`discovery.method: spectral`). Called again, only what has changed is computed; images that are new in
    the folder are classified with the model of the first run.

    Parameters
    ----------
    source
        Folder of images (a path or URI), a job file (`.yaml`), or the content of one.
    classes
        Number of classes to look for, the normal one included; `auto` estimates it, `from_labels` counts labels. By
        default what the job says; for a folder, `from_labels` if all its images are labeled, else `auto`.
    detector
        Detector of anomalous regions: `patchcore` learns from normal images, `musc` compares images with each other,
        `ground_truth` takes masks, `precomputed` takes maps, `graph` runs an exported network. By default what the job
        says; for a folder, what its images permit.
    normals
        Of a folder: its subfolder of normal images, if that is not recognized by its name.
    masks
        Of a folder: patterns of its masks, such as `masks/{dir}{stem}.png`, if they are not recognized.
    output
        Folder or URI of all results. By default `runs/NAME`, where the name is that of the job or folder.
    overrides
        Any keys of the job file, as on the command line: `["train.epochs=10", "discovery.method=anomalyncd"]`.
    address
        Address of a running Ray to join, or `auto`. By default this machine.
    progress
        Whether to show the steps; warnings are always shown.

    Returns
    -------
    Results
        The finished run: images and regions as data frames, figures, models, and the report.

    Raises
    ------
    AncdError
        The job cannot run, or failed; the message has one line for each problem.

    Examples
    --------
    >>> from ancd_ray import discover
    >>> results = discover("/archive/parts", classes=6, normals="ok")
    >>> results.images[["uri", "class", "confidence"]]
    """
    keys = {"classes.novel": classes, "detector.name": detector, "output": str(output) if output else None}
    changes = [*_write_overrides(keys), *overrides]
    with _hiding_secrets():
        if _is_folder(source):
            from ancd_ray.jobs.draft import draft_discovery

            job = validate(draft_discovery(str(source), detector, normals, masks), changes)
        elif normals or masks:
            raise JobError("normals, masks: belong to a folder of images; the products of a job file have their own")
        else:
            job = validate(source, changes) if isinstance(source, Mapping) else load(Path(source).expanduser(), changes)
        if job.mode == "classify":
            raise JobError("mode: classify: applies a finished model, and discovers nothing; see ancd_ray.classify")
        if job.sweep:
            raise JobError("sweep: has no single result; run it with `ancd-ray submit`")
        return _run(job, address, progress)


@overload
def classify(
    images: Image | Iterable[Image], model: AnyModel, output: None = None, *, product: str | None = None
) -> Predictions: ...


@overload
def classify(
    images: str | Path,
    model: AnyModel,
    output: str | Path,
    *,
    product: str | None = None,
    overrides: Sequence[str] = (),
    address: str | None = None,
    progress: bool = True,
) -> Results: ...


def classify(
    images: Image | Iterable[Image],
    model: AnyModel,
    output: str | Path | None = None,
    *,
    product: str | None = None,
    overrides: Sequence[str] = (),
    address: str | None = None,
    progress: bool = True,
) -> Predictions | Results:
    """Classify images with a finished model: some in memory, or a folder of any size as a job.

    Parameters
    ----------
    images
        Image or images: paths, bytes of encoded images, RGB pixels (H, W, 3) uint8, or `ImageInput` with a mask or
        anomaly map. Of a folder, all images below it. With `output`, a folder or URI.
    model
        Results of `discover`, a `Model`, a run folder, a folder with a model, or `models:/NAME@ALIAS` of MLflow.
    output
        Folder or URI of a job of `mode: classify`: each image is classified once, and images that are new or changed
        are when the function is called again. By default there is no job, and nothing is written.
    product
        Product whose model is used, for a run with several products.
    overrides
        With `output`: keys of the job file, as on the command line.
    address
        With `output`: address of a running Ray to join, or `auto`. By default this machine.
    progress
        With `output`: whether to show the steps; warnings are always shown.

    Returns
    -------
    Predictions or Results
        Without `output`, frames of the images, their regions, and of what could not be used; with it, the finished run.

    Raises
    ------
    AncdError
        There is no such model, it needs masks or maps that are not there, or the job failed.

    Examples
    --------
    >>> from ancd_ray import classify
    >>> classify(["new.png", pixels], results).images
    >>> classify("/archive/today", results, output="runs/today").images
    """
    with _hiding_secrets():
        if output is None:
            if overrides or address:
                raise JobError("overrides, address: belong to a job; give output= as well")
            from ancd_ray.jobs.in_memory import classify_inputs, list_inputs

            return classify_inputs(list_inputs(images), _load_model(model, product))
        if not isinstance(images, str | Path):
            raise JobError("images: with output= they are one folder; leave output out to classify images in memory")
        with tempfile.TemporaryDirectory() as scratch:
            document = _draft_classification(str(images), _locate_model(model, scratch), product)
            job = validate(document, [*_write_overrides({"output": str(output)}), *overrides])
            return _run(job, address, progress)


# --- jobs -------------------------------------------------------------------------------------------------------


def _is_folder(source: str | Path | Mapping[str, Any]) -> bool:
    if isinstance(source, Mapping):
        return False
    path = Path(source).expanduser()
    return path.suffix not in (".yaml", ".yml") or path.is_dir()


def _draft_classification(folder: str, place: str, product: str | None) -> dict[str, Any]:
    """Draft a job of `mode: classify` for all images of a folder, with the model at a place."""
    from ancd_ray.jobs.draft import draft_discovery

    drafted = draft_discovery(folder)
    products = drafted["data"]["products"]
    if len(products) == 1:  # it has its name from the folder, and models of a run are found by that of the product
        products[0]["name"] = Folder(_find_model(place, product)).read_json(DOCUMENT)["product"]
    elif product:
        place = _find_model(place, product)
    for each in products:
        each.pop("detector", None)  # it is the model's
        if each["layout"] == "folder":
            each.pop("normals", None)  # nothing is learned from them here
    return {"name": drafted["name"], "mode": "classify", "model": place, "data": drafted["data"]}


def _write_overrides(keys: Mapping[str, Any]) -> list[str]:
    """Write keys as on the command line, without those that are None."""
    return [f"{key}={json.dumps(value)}" for key, value in keys.items() if value is not None]


def _run(job: Job, address: str | None, progress: bool) -> Results:
    """Run a job as `ancd-ray submit` does."""
    from ancd_ray.engine.progress import Display
    from ancd_ray.jobs.frames import Results

    display = Display(f"{job.name} → {hide_secrets(job.output_root)}", quiet=not progress)
    with display.running():
        if job.mode == "classify":
            from ancd_ray.jobs.classify.run import run as apply

            folder = apply(job, address, display)
        else:
            from ancd_ray.jobs.run import run

            folder = run(job, address, display)
    return Results(folder.uri)


# --- models and errors ------------------------------------------------------------------------------------------


def _locate_model(model: AnyModel, scratch: str) -> str:
    """Return where a model is; one in memory is saved to `scratch`, which need not outlast the job."""
    from ancd_ray.jobs.frames import Results
    from ancd_ray.models.model import Model

    if isinstance(model, Model):
        model.save(Folder(scratch))
        return scratch
    return model.folder if isinstance(model, Results) else str(model)


def _find_model(place: str, product: str | None) -> str:
    """Find the folder of a model in a run folder, a folder of its own, or MLflow's registry."""
    if place.startswith("models:/"):
        from ancd_ray.jobs.tracking import download_model

        return str(download_model(place))
    return find_model(place, product)


def _load_model(model: AnyModel, product: str | None) -> Model:
    from ancd_ray.models.model import Model

    return model if isinstance(model, Model) else Model.load(_find_model(_locate_model(model, ""), product))


@contextmanager
def _hiding_secrets() -> Iterator[None]:
    """Hide the credentials of URIs in messages: notebooks keep them, tracebacks included."""
    try:
        yield
    except AncdError as error:
        error.args = (hide_secrets(str(error)),)
        raise
