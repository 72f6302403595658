"""The command that classifies images with a finished model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ancd_ray.cli.errors import explain_errors

if TYPE_CHECKING:
    from ancd_ray.models.model import ImageInput

_AT_ONCE = 64  # images per call of the model; bounds memory


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE_OR_FOLDER...")
@click.option("--product", help="Product whose model is used, for a run with several products.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "table"]),
    default="json",
    show_default=True,
    help="JSON lines with probabilities and regions, or a table.",
)
@click.option(
    "--masks",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of masks named like the images, for a model that takes its regions from masks.",
)
@click.option(
    "--maps",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of anomaly maps named like the images, for a model with precomputed maps.",
)
@click.option("--weights", help="Weights file of the backbone, if its location has changed.")
def predict(
    model: str,
    images: tuple[Path, ...],
    product: str | None,
    form: str,
    masks: Path | None,
    maps: Path | None,
    weights: str | None,
) -> None:
    """Classify new images with the model of a finished run.

    MODEL is a run folder (as `submit` prints it), a folder with a model, or models:/NAME@ALIAS of MLflow's registry
    (on the server MLFLOW_TRACKING_URI). Of a folder, all images below it are classified.

    \b
      ancd-ray predict runs/quickstart/runs/quickstart-1a2b3c new.png
      ancd-ray predict models:/sweep.tile@champion /line/today --format table
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.models.answers import answer_rows
        from ancd_ray.models.find import find_model
        from ancd_ray.models.model import Model

        if model.startswith("models:/"):
            from ancd_ray.jobs.tracking import download_model

            folder = str(download_model(model))
        else:
            folder = find_model(model, product)
        loaded = Model.load(folder, weights)
        inputs = list(list_inputs(images, masks, maps))
        if not inputs:
            raise click.UsageError(f"{', '.join(map(str, images))}: no image")
        if form == "table":
            click.echo(f"{'class':<12} {'confidence':>10} {'score':>8}  image")
        for start in range(0, len(inputs), _AT_ONCE):
            for row in answer_rows(loaded, inputs[start : start + _AT_ONCE]):
                click.echo(json.dumps(row, ensure_ascii=False) if form == "json" else _format_row(row))


def list_inputs(paths: Sequence[Path], masks: Path | None, maps: Path | None) -> Iterator[ImageInput]:
    """List the images, each with its mask and map: of the same name below the same folders, with any suffix.

    Raises
    ------
    UsageError
        Two images have the same mask or map.
    """
    from ancd_ray.data.images import is_image
    from ancd_ray.models.model import ImageInput

    by_stem = [
        {file.relative_to(top).with_suffix(""): file for file in _walk(top)} if top else {} for top in (masks, maps)
    ]
    taken: dict[Path, Path] = {}  # image of each mask and map
    for path in paths:
        files = [file for file in _walk(path) if is_image(file.name)] if path.is_dir() else [path]
        for file in files:
            least = len(file.relative_to(path).parts) if path.is_dir() else 1
            beside = [_find_beside(each, file, least) for each in by_stem]
            for found in filter(None, beside):
                other = taken.setdefault(found, file.absolute())
                if other != file.absolute():
                    raise click.UsageError(f"{found} fits {other} and {file}; give it the folders of its image")
            yield ImageInput(file, str(file), *beside)


def _find_beside(files: Mapping[Path, Path], image: Path, least: int) -> Path | None:
    """Find the mask or map of an image by as much of the end of its path as there is, at least some of its parts."""
    parts = image.absolute().with_suffix("").parts[1:]
    for n in range(len(parts), least - 1, -1):
        stem = Path(*parts[-n:])
        found = files.get(stem) or files.get(stem.with_name(f"{stem.name}_mask"))
        if found:
            return found
    return None


def _walk(top: Path) -> list[Path]:
    return sorted(path for path in top.rglob("*") if path.is_file())


def _format_row(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{'-':<12} {'':>10} {'':>8}  {row['image']}: {row['error']}"
    return f"{row['class']:<12} {row['confidence']:>10.3f} {row['score']:>8.3f}  {row['image']}"
