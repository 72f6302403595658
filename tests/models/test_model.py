"""The model of a product: saved by every discovery method, loaded elsewhere, applied to images, refused when broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds
import pytest

from ancd_ray.config.job import Job
from ancd_ray.discovery.clusterings import CLUSTERINGS
from ancd_ray.models.format import ModelError
from ancd_ray.models.model import ImageInput, Model
from tests.conftest import REPO, Ran

MakeJob = Callable[..., Job]
RunJob = Callable[[Job], Ran]


ALL = 10_000  # images at once


def _compare(*cases: tuple[Path, Path, int]) -> None:
    """Compare models with their runs, each predicting so many images at once, in one fresh process."""
    arguments = [str(argument) for case in cases for argument in case]
    command = [sys.executable, "-m", "tests.models.fresh", *arguments]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=580, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_trained_model_gives_the_predictions_of_its_run(finished: tuple[Job, Ran], tmp_path: Path) -> None:
    """All images at once, or one at a time."""
    _, run = finished
    shutil.copytree(run.folder.path / "models" / "tile", tmp_path / "moved")
    _compare((tmp_path / "moved", run.folder.path, ALL), (tmp_path / "moved", run.folder.path, 1))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_model_of_every_clustering_gives_the_predictions_of_its_run(
    small_job: MakeJob, run_job: RunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ancd_ray.jobs.tracking.find_store", lambda *_: None)  # a third of the time
    cases = []
    for method in CLUSTERINGS:
        run = run_job(small_job(tmp_path / "out", f"discovery.method={method}")).folder.path
        shutil.copytree(run / "models" / "tile", tmp_path / method)
        cases.append((tmp_path / method, run, ALL))
    model, run, _ = cases[-1]
    _compare(*cases, (model, run, 1))


@pytest.fixture(scope="module")
def model(finished: tuple[Job, Ran]) -> Model:
    return Model.load(finished[1].folder.path / "models" / "tile")


def test_images_come_as_paths_bytes_and_pixels(model: Model, finished: tuple[Job, Ran]) -> None:
    rows = ds.dataset(str(finished[1].folder.path / "image_predictions")).to_table().slice(0, 1).to_pylist()
    path = Path(rows[0]["uri"])
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    found = model.predict([path, ImageInput(path.read_bytes(), "bytes"), ImageInput(pixels, "pixels")])
    assert found.image_predictions.num_rows == 3
    assert {tuple(probs) for probs in found.image_predictions.column("probs").to_pylist()} == {tuple(rows[0]["probs"])}
    assert len(model.class_names) == len(rows[0]["probs"])


def test_every_image_is_predicted_or_quarantined(model: Model, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    black = np.zeros((64, 64, 3), np.uint8)
    inputs = [tmp_path / "text.png", tmp_path / "gone.png", ImageInput(black, "a"), ImageInput(black, "a")]
    found = model.predict(inputs)
    assert found.image_predictions.num_rows == 1
    reasons = sorted(row["reason"] for row in found.quarantine.to_pylist())
    assert len(reasons) == 3
    assert reasons[0] == "listed more than once"
    assert model.predict([]).image_predictions.num_rows == 0


def test_masks_are_asked_for(small_job: MakeJob, run_job: RunJob, demo_root: Path, tmp_path: Path) -> None:
    overrides = ("detector={name: ground_truth}", "discovery.method=ward")
    run = run_job(small_job(tmp_path, *overrides)).folder.path
    model = Model.load(run / "models" / "tile")
    mask = next((demo_root / "tile" / "ground_truth" / "hole").iterdir())
    image = demo_root / "tile" / "test" / "hole" / mask.name.replace("_mask", "")
    with pytest.raises(ModelError, match="give the mask of each image"):
        model.predict([image])
    rows = {row["uri"]: row for row in ds.dataset(str(run / "image_predictions")).to_table().to_pylist()}
    found = model.predict([ImageInput(image, mask=mask)]).image_predictions.to_pylist()
    assert found[0]["probs"] == rows[str(image)]["probs"]


def test_what_is_no_model_is_refused(model: Model, finished: tuple[Job, Ran], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json is missing"):
        Model.load(tmp_path)
    shutil.copytree(finished[1].folder.path / "models" / "tile", tmp_path / "old")
    document = model.describe()
    (tmp_path / "old" / "model.json").write_text(json.dumps({**document, "format": 1}))
    with pytest.raises(ModelError, match="format 1 is not 5"):
        Model.load(tmp_path / "old")
    other = {**document, "detector": {"name": "os.system"}}
    (tmp_path / "old" / "model.json").write_text(json.dumps(other))
    with pytest.raises(ModelError, match="cannot be read"):
        Model.load(tmp_path / "old")
    damaged = tmp_path / "damaged"
    shutil.copytree(finished[1].folder.path / "models" / "tile", damaged)
    (damaged / "classifier.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="missing or damaged"):
        Model.load(damaged)
    (damaged / "classifier.safetensors").unlink()
    with pytest.raises(ModelError, match="missing or damaged"):
        Model.load(damaged)
    wrong = tmp_path / "wrong"
    shutil.copytree(finished[1].folder.path / "models" / "tile", wrong)
    classifier = json.loads((wrong / "classifier.json").read_text())
    (wrong / "classifier.json").write_text(json.dumps({**classifier, "backbone_digest": "0" * 64}))
    with pytest.raises(ModelError, match="weights of lite are not those"):
        Model.load(wrong).predict([ImageInput(np.zeros((64, 64, 3), np.uint8), "a")])
