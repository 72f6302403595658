"""Jobs with tiles and regions of interest: regions, the model and wrong settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, validate
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs import plan
from ancd_ray.models.model import Model
from tests.conftest import Ran

RunJob = Callable[[Job], Ran]
LEFT = {"polygon": [[0, 0], [0.6, 0], [0.6, 1], [0, 1]], "units": "relative"}


def _make_job(root: Path, output: Path, detector: dict[str, Any], **keys: Any) -> Job:
    return validate(
        {
            "name": "tiles",
            "data": {"root": str(root), "products": [{"name": "tile", "layout": "mvtec", "path": "tile", **keys}]},
            "detector": detector,
            "discovery": {"method": "ward"},
            "resources": {"in_process_below": 100_000},
            "output": str(output),
        }
    )


def test_tiles_and_the_region_of_interest_hold_from_the_fit_to_the_model(
    demo_root: Path, tmp_path: Path, run_job: RunJob
) -> None:
    detector = {
        **{"name": "patchcore", "image_size": 128, "coreset": 200, "candidates": 1000},
        "tile": {"size": 80, "overlap": 16},
    }
    job = _make_job(demo_root, tmp_path / "out", detector, roi=LEFT)
    folder = run_job(job).folder
    steps = {step.name: Output.find(step.folder(plan.make(job).root)) for step in plan.make(job).products[0].steps}
    for row in steps["detect"].table("maps").to_pylist():  # type: ignore[union-attr]
        values = np.frombuffer(row["map"], row["dtype"]).reshape(row["height"], row["width"])
        assert min(values.shape) > 180  # 128 px of image at 128 / 80
        assert not values[:, int(0.6 * row["width"]) + 1 :].any()
        assert values[:, : int(0.6 * row["width"]) - 1].all()
    regions = steps["regions"].table("regions").to_pylist()  # type: ignore[union-attr]
    assert max(row["x0"] for row in regions) < 0.6 * 128
    model = Model.load(folder.path / "models" / "tile")
    assert model.roi is not None
    predicted = {row["image_id"]: row for row in steps["merge"].table("image_predictions").to_pylist()}  # type: ignore[union-attr]
    rows = [row for row in steps["catalog"].table("images").to_pylist() if row["role"] == "query"][:4]  # type: ignore[union-attr]
    for again in model.classify(rows).image_predictions.to_pylist():
        assert again["cls"] == predicted[again["image_id"]]["cls"]
        assert again["score"] == predicted[again["image_id"]]["score"]


def test_wrong_regions_of_interest_are_told_in_one_line(demo_root: Path, tmp_path: Path, run_job: RunJob) -> None:
    detector = {"name": "ground_truth"}
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((8, 8), np.uint8))
    for name, expected in (("empty.png", "the mask is empty"), ("none.png", "no such file")):
        given = {"mask": str(tmp_path / name)}
        with pytest.raises(JobError, match=expected) as caught:
            plan.make(_make_job(demo_root, tmp_path / "out", detector, roi=given))
        assert len(caught.value.lines) == 1
    for points, units, expected in (
        ([[2, 0], [3, 0], [3, 1]], "relative", "outside the image"),
        ([[0, 0], [300, 0], [300, 100]], "relative", "units: pixels"),
        ([[0, 0], [1, 0]], "relative", "at least 3"),
    ):
        with pytest.raises(JobError, match=expected):
            _make_job(demo_root, tmp_path / "out", detector, roi={"polygon": points, "units": units})
    far = {"polygon": [[500, 500], [600, 500], [600, 600]], "units": "pixels"}
    with pytest.raises(Exception, match="the region of interest is outside its images"):
        run_job(_make_job(demo_root, tmp_path / "out", detector, roi=far))
