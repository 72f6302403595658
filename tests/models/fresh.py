"""Loads models in a fresh process and compares their predictions with those of the runs they come from.

python -m tests.models.fresh (MODEL RUN AT_ONCE)...: exit code 0 if every row is the same, to the last bit, and none of
Ray, MLflow and Plotly was imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from ancd_ray.models.model import ImageInput, Model

FREE = ("ray", "mlflow", "plotly")
OWN = {"image_id", "region_id", "label", "product"}  # columns that a model alone cannot know


def main(arguments: list[str]) -> None:
    """Compare each model with its run, predicting so many images at once."""
    for folder, run, at_once in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
        compare(Model.load(folder), Path(run), int(at_once))
    imported = [name for name in FREE if name in sys.modules]
    assert not imported, imported


def compare(model: Model, run: Path, at_once: int) -> None:
    """Predict the images of a run."""
    images = ds.dataset(str(run / "image_predictions")).to_table().to_pylist()
    regions = ds.dataset(str(run / "region_predictions")).to_table().to_pylist()
    inputs = [ImageInput(row["uri"]) for row in images]
    for start in range(0, len(inputs), at_once):
        found = model.predict(inputs[start : start + at_once])
        assert not found.quarantine.num_rows, found.quarantine.to_pylist()
        expected = {row["uri"]: row for row in images[start : start + at_once]}
        assert found.image_predictions.num_rows == len(expected)
        for row in found.image_predictions.to_pylist():
            theirs = expected[row["uri"]]
            assert _shared(row) == _shared(theirs), (run, row["uri"])
            mine = _of_image(found.region_predictions.to_pylist(), row["image_id"])
            assert mine == _of_image(regions, theirs["image_id"]), (run, row["uri"])


def _of_image(regions: list[dict[str, Any]], image_id: str) -> list[dict[str, Any]]:
    return [_shared(row) for row in regions if row["image_id"] == image_id]


def _shared(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in OWN}


if __name__ == "__main__":
    main(sys.argv[1:])
