"""Binarization at a quantile of normal images: what it cuts, and what a model keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ancd_ray.config.job import Job
from ancd_ray.config.load import validate
from ancd_ray.data.tables import decode_anomaly_map
from ancd_ray.detectors.calibration import Calibration
from ancd_ray.detectors.score_range import find_cut
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs import plan
from ancd_ray.models.model import Model
from tests.conftest import Ran


@pytest.mark.parametrize("known", [{}, {"a": np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)}])
def test_without_normal_images_mebin_is_chosen(known: dict[str, NDArray[np.float32]]) -> None:
    calibration = Calibration.measure(known, {"b": np.ones((8, 8), np.float32)})
    cut = find_cut(calibration, "auto")
    assert cut == (pytest.approx(0.99, abs=0.02) if known else None)
    assert find_cut(calibration, "calibrated") == (cut or 1)


def test_regions_are_what_normal_images_do_not_have(
    demo_root: Path, tmp_path: Path, run_job: Callable[[Job], Ran]
) -> None:
    job = validate(
        {
            "name": "calibrated",
            "data": {"root": str(demo_root), "products": [{"name": "tile", "layout": "mvtec", "path": "tile"}]},
            "detector": {"name": "musc", "image_size": 128, "references": 12},
            "discovery": {"method": "ward"},
            "resources": {"in_process_below": 100_000},
            "output": str(tmp_path / "out"),
        }
    )
    folder = run_job(job).folder
    made = plan.make(job)
    steps = {step.name: Output.find(step.folder(made.root)) for step in made.products[0].steps}
    regions = steps["regions"]
    assert regions is not None
    low, high, cut = regions.values["range"]
    assert low <= high
    maps = {row["image_id"]: decode_anomaly_map(row) for row in steps["detect"].table("maps").to_pylist()}  # type: ignore[union-attr]
    for row in regions.table("regions").to_pylist():
        assert row["area"] > 0, "every image has a region, if only around its peak"
    shares = [float(np.mean(values > cut)) for values in maps.values()]
    assert np.median(shares) < 0.2
    model = Model.load(folder.path / "models" / "tile")
    assert model.score_range is not None
    assert model.score_range.cut == cut
    rows = [row for row in steps["catalog"].table("images").to_pylist() if row["role"] == "query"][:4]  # type: ignore[union-attr]
    predicted = {row["image_id"]: row["cls"] for row in steps["merge"].table("image_predictions").to_pylist()}  # type: ignore[union-attr]
    for again in model.classify(rows).image_predictions.to_pylist():
        assert again["cls"] == predicted[again["image_id"]]
