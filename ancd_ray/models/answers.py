"""Predictions of a model as plain rows, for the command line and for serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ancd_ray.models.model import ImageInput, Model

_NOVELTY = ("novelty", "is_unknown")


def answer_rows(model: Model, images: Sequence[ImageInput]) -> list[dict[str, Any]]:
    """Classify images; returns one row per image, in order.

    Returns
    -------
    Rows with `image` (its name), `class`, `class_id`, `cls`, `confidence`, `is_normal`, `novelty`, `is_unknown`,
    `score`, `probs` and `regions` (of each its box, class, confidence, novelty, score and area), or with `image` and
    `error` for an image that could not be used.
    """
    names = [each.name or str(each.image) for each in images]
    keyed = [ImageInput(each.image, str(place), each.mask, each.anomaly_map) for place, each in enumerate(images)]
    found = model.predict(keyed)
    of_id = {row["image_id"]: place for place, row in enumerate(model.make_rows(keyed))}
    answers: list[dict[str, Any]] = [{"image": name} for name in names]
    boxes = {row["region_id"]: row for row in found.regions.drop_columns(["image", "mask"]).to_pylist()}
    for row in found.image_predictions.to_pylist():
        answers[of_id[row["image_id"]]] |= {
            **_describe_class(model, row),
            **{key: row[key] for key in ("cls", "confidence", "is_normal", *_NOVELTY, "score", "probs")},
            "regions": [],
        }
    for row in found.region_predictions.to_pylist():
        box = boxes[row["region_id"]]
        answers[of_id[row["image_id"]]]["regions"].append(
            {
                "box": [box[edge] for edge in ("x0", "y0", "x1", "y1")],
                **_describe_class(model, row),
                **{key: row[key] for key in ("cls", "confidence", *_NOVELTY, "score", "area")},
            }
        )
    for row in found.quarantine.to_pylist():
        answers[of_id[row["image_id"]]]["error"] = row["reason"]
    return answers


def _describe_class(model: Model, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the class of an image or region: the nearest known one, also if it is unknown."""
    return {"class": model.class_names[row["cls"]], "class_id": model.class_ids[row["cls"]]}
