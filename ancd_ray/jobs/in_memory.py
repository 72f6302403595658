"""Images that a model classifies in memory, without a job, and what it says of them as data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.images import is_image
from ancd_ray.jobs.frames import BOX, IMAGE, LOST, REGION, add_boxes, join, make_frame
from ancd_ray.models.format import ModelError
from ancd_ray.models.model import ImageInput, Model
from ancd_ray.stages.catalog import make_image_id

if TYPE_CHECKING:
    import pandas as pd

Image: TypeAlias = str | Path | bytes | NDArray[np.uint8] | ImageInput

_AT_ONCE = 64  # images per call of the model; bounds memory


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of images in memory; every image is in `images` or in `quarantine`.

    Parameters
    ----------
    images
        A row for each classified image; the index is the place of the image among those that were given.
    regions
        A row for each anomalous region of these images, with its box in pixels, right and bottom exclusive.
    quarantine
        A row for each image that could not be used, with the reason; the index is its place.
    class_names
        Names of the classes, by index.
    """

    images: pd.DataFrame
    regions: pd.DataFrame
    quarantine: pd.DataFrame
    class_names: list[str]


def list_inputs(images: Image | Iterable[Image]) -> list[ImageInput]:
    """List images: one or several, or all below a folder.

    Raises
    ------
    ModelError
        The folder has none, or pixels are not uint8.
    """
    if isinstance(images, str | Path) and Path(images).expanduser().is_dir():
        top = Path(images).expanduser()
        found = sorted(path for path in top.rglob("*") if path.is_file() and is_image(path.name))
        if not found:
            raise ModelError(f"{top}: has no image of a known type")
        return [ImageInput(path) for path in found]
    if isinstance(images, str | Path | bytes | ImageInput):
        given: list[Image] = [images]
    elif isinstance(images, np.ndarray) and images.ndim < 4:  # one image; with four axes it is a batch
        given = [images]
    else:
        given = list(images)
    inputs = [each if isinstance(each, ImageInput) else ImageInput(each) for each in given]
    for each in inputs:
        if isinstance(each.image, np.ndarray) and each.image.dtype != np.uint8:
            raise ModelError(f"images: pixels are uint8, 0 to 255, and not {each.image.dtype}")
    return inputs


def classify_inputs(inputs: Sequence[ImageInput], model: Model) -> Predictions:
    """Classify images, some at a time.

    Raises
    ------
    ModelError
        The model needs masks or anomaly maps and no image has one, or the weights of its backbone differ.
    """
    # each is known by its place, since an image may be given twice
    keyed = [ImageInput(each.image, str(place), each.mask, each.anomaly_map) for place, each in enumerate(inputs)]
    shown = {make_image_id(model.product, str(place)): _name(each, place) for place, each in enumerate(inputs)}
    found = [model.predict(keyed[start : start + _AT_ONCE]) for start in range(0, len(keyed), _AT_ONCE)]
    names = {model.product: model.class_names}
    images = join([each.image_predictions for each in found], "image_predictions", IMAGE)
    regions = join([each.region_predictions for each in found], "region_predictions", REGION)
    boxes = join([each.regions for each in found], "regions", ("region_id", *BOX))
    lost = join([each.quarantine for each in found], "quarantine", ("image_id", *LOST))
    return Predictions(
        images=_order(make_frame(images, names), shown),
        regions=make_frame(add_boxes(regions, boxes), names),
        quarantine=_order(lost.to_pandas(), shown).drop(columns="image_id"),
        class_names=model.class_names,
    )


def _name(each: ImageInput, place: int) -> str:
    return each.name or (str(each.image) if isinstance(each.image, str | Path) else f"image-{place}")


def _order(frame: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Put rows in the order of the images, with their places as index, and name the images."""
    places = {image_id: place for place, image_id in enumerate(names)}
    named = frame.assign(uri=[names[image_id] for image_id in frame["image_id"]])
    placed = named.set_axis([places[image_id] for image_id in frame["image_id"]], axis="index")
    ordered: pd.DataFrame = placed.sort_index()
    return ordered
