"""`ancd-ray init`: layouts are recognized, and the drafted job is one that `plan` accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from ancd_ray.cli.main import main
from ancd_ray.config.load import JobError, parse, validate
from ancd_ray.data.layouts import LayoutError
from ancd_ray.jobs.draft import draft_job
from ancd_ray.jobs.plan import make


def _write(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), number + 1, np.uint8)).save(path)


def _make_mvtec(root: Path) -> None:
    _write(root, "train/good/0.png", "train/good/1.png", "test/good/0.png", "test/hole/0.png", "test/dent/0.png")
    _write(root, "ground_truth/hole/0_mask.png", "ground_truth/dent/0_mask.png")


def _make_btad(root: Path) -> None:
    _write(root, "train/ok/0.png", "test/ok/0.png", "test/ko/0.png", "ground_truth/ko/0.png")


def _make_renamed(root: Path) -> None:
    _write(root, "train/gut/0.png", "test/gut/0.png", "test/hole/0.png", "ground_truth/hole/0.png")


def _make_visa(root: Path) -> None:
    _write(root, *(f"Data/Images/Normal/{i}.JPG" for i in range(4)), "Data/Images/Anomaly/0.JPG")
    _write(root, "Data/Masks/Anomaly/0.png")


def _make_mtd(root: Path) -> None:
    _write(root, "MT_Free/Imgs/0.jpg", "MT_Free/Imgs/1.jpg", "MT_Crack/Imgs/0.jpg", "MT_Crack/Imgs/0.png")
    (root / "normals.txt").write_text("1.jpg\n")


def _make_coco(root: Path) -> None:
    _write(root, "images/0.png", "images/1.png", "good/0.png", "good/1.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9], "segmentation": [[2, 2, 11, 2, 11, 11]]}
    document = {
        "images": [{"id": 1, "file_name": "images/0.png", "width": 32, "height": 32}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "hole"}],
    }
    (root / "instances.json").write_text(json.dumps(document))


def _make_labelme(root: Path) -> None:
    _write(root, "a.png", "b.png", "normal/0.png")
    shape = {"label": "hole", "points": [[2, 2], [11, 2], [11, 11]], "shape_type": "polygon"}
    (root / "a.json").write_text(json.dumps({"shapes": [shape], "imageHeight": 32, "imageWidth": 32}))


def _make_manifest(root: Path) -> None:
    _write(root, "a/0.png", "a/1.png", "a/2.png")
    (root / "list.csv").write_text("File; Class; role\na/0.png; hole; test\na/1.png; dent; test\na/2.png; ; normal\n")


def _make_folder(root: Path) -> None:
    _write(root, "images/0.png", "images/1.png", "normal/0.png", "masks/0.png", "masks/1.png")


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "mvtec": (_make_mvtec, {"layout": "mvtec"}),
    "btad": (_make_btad, {"layout": "btad"}),
    "renamed": (_make_renamed, {"layout": "mvtec", "normal_labels": ["gut"]}),
    "visa": (_make_visa, {"layout": "visa", "normals": 2}),
    "mtd": (_make_mtd, {"layout": "mtd", "normals": "normals.txt"}),
    "coco": (_make_coco, {"layout": "coco", "normals": "good"}),
    "labelme": (_make_labelme, {"layout": "labelme", "normals": "normal"}),
    "manifest": (_make_manifest, {"layout": "manifest", "path": "list.csv"}),
    "folder": (
        _make_folder,
        {
            "layout": "folder",
            "normals": "normal",
            "masks": ["masks/{dir}{stem}.*", "masks/{stem}.*", "masks/{stem}_mask.*"],
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_recognized_and_its_job_can_run(name: str, tmp_path: Path) -> None:
    fill, expected = CASES[name]
    fill(tmp_path)
    draft = draft_job(str(tmp_path))
    document = yaml.safe_load(draft.text)
    (product,) = document["data"]["products"]
    assert product == {"name": product["name"], "path": ".", **expected}
    assert not draft.lacks
    plan = make(validate(parse(draft.text.encode(), "draft")))
    assert plan.job.detector.name == "patchcore"
    assert any("files: " in line or "taken" in line for line in draft.found)


def test_products_in_subfolders_have_their_own_detectors(tmp_path: Path) -> None:
    _make_mvtec(tmp_path / "tile 1")
    _make_mvtec(tmp_path / "tile-1")
    _make_btad(tmp_path / "bottle")
    _write(tmp_path, "drawn/test/a/0.png", "drawn/test/b/0.png", "drawn/ground_truth/a/0.png")
    _write(tmp_path, "leftovers/0.png")
    draft = draft_job(str(tmp_path))
    products = {product["name"]: product for product in yaml.safe_load(draft.text)["data"]["products"]}
    assert list(products) == ["bottle", "drawn", "tile-1", "tile-1-3"]
    assert products["drawn"]["detector"] == {"name": "ground_truth"}
    assert "detector" not in products["bottle"]
    assert products["tile-1"]["path"] == "tile 1"
    make(validate(parse(draft.text.encode(), "draft")))


def test_images_without_anything_are_compared_with_each_other(tmp_path: Path) -> None:
    _write(tmp_path, "0.png", "1.png")
    draft = draft_job(str(tmp_path))
    assert not draft.lacks
    assert any("no normal images" in line and "musc" in line for line in draft.found)
    assert yaml.safe_load(draft.text)["detector"]["name"] == "musc"
    assert yaml.safe_load(draft_job(str(tmp_path), has_masks=True).text)["detector"]["name"] == "ground_truth"
    assert yaml.safe_load(draft.text)["classes"]["novel"] == "auto"
    with pytest.raises(JobError, match="no such folder"):
        draft_job(str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match="no image of a known type"):
        draft_job(str(tmp_path / "empty"))


def test_init_writes_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make_mvtec(tmp_path / "tile #1: new")
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    first = run.invoke(main, ["init", "tile #1: new"])
    assert first.exit_code == 0, first.output
    assert first.stdout.splitlines()[-1] == "tile-1-new.yaml"
    assert "labels: dent 1, good 1, hole 1" in first.stdout
    again = run.invoke(main, ["init", "tile #1: new"])
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    planned = run.invoke(main, ["plan", "tile-1-new.yaml"])
    assert planned.exit_code == 0, planned.output


def test_credentials_do_not_get_into_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise LayoutError("no such bucket")

    monkeypatch.setattr("ancd_ray.jobs.draft.recognize", lambda _: [{"layout": "mvtec", "path": "."}])
    monkeypatch.setattr("ancd_ray.jobs.draft.list_product", refuse)
    draft = draft_job("s3://KEY123:SECRET456@bucket/tiles?region=us-east-1")
    assert "SECRET456" not in draft.text
    assert "${ANCD_DATA}" in draft.text
    assert draft.name == "tiles"


def test_a_folder_is_a_job(tmp_path: Path) -> None:
    _write(tmp_path / "parts", "0.png", "1.png")
    shown = CliRunner().invoke(main, ["plan", str(tmp_path / "parts"), f"output={tmp_path / 'out'}"])
    assert shown.exit_code == 0, shown.output
    assert "2 files: 2 taken" in shown.stdout
    assert "detector musc" in shown.stderr
