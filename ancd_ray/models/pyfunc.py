"""Model of a product as an MLflow pyfunc; MLflow executes this file to load a model ("models from code").

Input: a column `image` with images in base64 (or `data:` URLs), and optionally `name`, `mask` and `anomaly_map`
(base64). Output: a row for each image with its name and, as JSON, its class, confidence, anomaly score and regions, or
the reason why it could not be used.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import mlflow
from mlflow.models import set_model

from ancd_ray.models.answers import answer_rows
from ancd_ray.models.model import ImageInput, Model

ARTIFACT = "model"  # artifact with the folder of the model


class AncdRayModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Classifies the images of a request."""

    def load_context(self, context: Any) -> None:
        """Load the model from its artifacts."""
        self.model = Model.load(context.artifacts[ARTIFACT])

    # Without type hints, from which MLflow would derive a schema.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """Classify the images of a data frame."""
        import pandas as pd

        rows = model_input.to_dict(orient="records")
        answers: list[dict[str, Any]] = [{} for _ in rows]
        inputs, places = [], []
        for place, row in enumerate(rows):
            name = row.get("name") or f"image-{place}"
            try:
                contents = {key: _decode(row.get(key)) for key in ("image", "mask", "anomaly_map")}
            except (binascii.Error, ValueError):
                answers[place] = {"image": name, "error": "not base64"}
                continue
            places.append(place)
            inputs.append(ImageInput(contents["image"] or b"", name, contents["mask"], contents["anomaly_map"]))
        found = answer_rows(self.model, inputs)
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
        return pd.DataFrame([{"image": row["image"], "prediction": json.dumps(row)} for row in answers])


def _decode(text: Any) -> bytes | None:
    if not isinstance(text, str) or not text:
        return None
    return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)


set_model(AncdRayModel())
