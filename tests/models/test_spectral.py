"""A discovery on averaged views: its model gives new images the classes of the run, from one view of a region."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds

from ancd_ray.config.job import Job
from ancd_ray.jobs.identity.discovered import name_space
from ancd_ray.models.model import Model
from tests.conftest import Ran


def test_the_model_agrees_with_the_run(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], tmp_path: Path
) -> None:
    run = run_job(small_job(tmp_path, "discovery={method: spectral, symmetry: square}", "classes.novel=3"))
    assert "cluster" in run.computed
    assert "train" not in run.computed
    model = Model.load(run.folder.path / "models" / "tile")
    assert name_space(model.classifier).endswith("/ringed")
    rows = ds.dataset(str(run.folder.path / "image_predictions")).to_table().to_pylist()
    expected = {row["uri"]: row["probs"] for row in rows}
    found = model.predict(sorted(expected)).image_predictions.to_pylist()
    assert {row["uri"]: row["probs"] for row in found} == expected
    assert len({row["cls"] for row in rows}) == 3
    again = run_job(small_job(tmp_path, "discovery={method: spectral, symmetry: none}", "classes.novel=3"))
    assert again.computed >= {"encode", "cluster"}
    assert "detect" not in again.computed
