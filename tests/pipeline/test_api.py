"""The functions for notebooks: from a folder to data frames, figures, models and a report in one call."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

import ancd_ray
from ancd_ray import AncdError, ImageInput, Model, Predictions, Results, classify, discover
from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from tests.conftest import Ran

FAST = [
    *("detector.image_size=128", "detector.coreset=200", "detector.candidates=1000"),
    "resources.in_process_below=100000",
]


@pytest.fixture(autouse=True, scope="module")
def untracked() -> Iterator[None]:
    """MLflow takes longer than the rest, and has its own tests."""
    with patch.object(tracking, "find_store", return_value=None):
        yield


@pytest.fixture(scope="module")
def results(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The classes of the small archive."""
    return discover(demo_root / "tile", output=tmp_path_factory.mktemp("api") / "out", overrides=FAST, progress=False)


# --- discover ---------------------------------------------------------------------------------------------------


def test_from_a_folder_to_frames(results: Results, demo_root: Path) -> None:
    images, regions = results.images, results.regions
    assert isinstance(images, pd.DataFrame)
    assert isinstance(regions, pd.DataFrame)
    assert len(images) == len(images["image_id"].unique()) == 25
    assert set(images["uri"]) == {str(path) for path in (demo_root / "tile/test").rglob("*.png")}
    names = results.class_names["tile"]
    assert len(names) == 5, "as many as there are labels"
    assert [names[index] for index in images["cls"]] == images["class"].tolist()
    assert (
        images["n_regions"] == regions.groupby("image_id").size().reindex(images["image_id"], fill_value=0).values
    ).all()
    assert all(len(probs) == 5 for probs in images["probs"])
    assert images["is_normal"].dtype == bool
    assert images["confidence"].dtype == regions["score"].dtype == np.float32
    assert set(regions["image_id"]) <= set(images["image_id"])
    for low, high in (("x0", "x1"), ("y0", "y1")):
        assert regions[low].dtype == "Int32"
        assert (regions[low] < regions[high]).all()
    assert results.quarantine.empty


def test_figures_report_and_model(results: Results) -> None:
    assert results.report.read_text("utf-8").startswith("<!")
    rows = {row["level"]: row for row in results.summary["results"]}
    assert results.metrics["tile"]["image"]["nmi"] == pytest.approx(rows["image"]["nmi"])
    assert {"image", "region"} <= results.metrics["tile"].keys()
    model = results.model()
    assert isinstance(model, Model)
    assert model.class_names == results.class_names["tile"]
    assert results == Results(results.folder)


def test_a_notebook_shows_a_summary_with_a_link(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = results._repr_html_()
    assert "25 images" in shown
    assert f'href="{results.report.as_uri()}"' in shown
    assert sum(results.images["class"] == "class 1") > 0
    for name, count in results.images["class"].value_counts().items():
        assert f"<td>{name}</td><td>{count}</td>" in shown
    monkeypatch.chdir(Path(results.folder).parents[1])
    assert f'href="runs/{Path(results.folder).name}/report.html"' in results._repr_html_()


def test_a_second_call_computes_nothing(results: Results, demo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = Path(results.folder).parents[1]
    assert discover(str(demo_root / "tile"), output=output, overrides=FAST) == results
    said = capsys.readouterr().err.splitlines()
    assert said
    assert all("cached" in line for line in said)
    assert discover(demo_root / "tile", output=str(output), overrides=FAST, progress=False) == results
    assert capsys.readouterr() == ("", "")


def test_job_files_and_their_content(
    clustered: tuple[Job, Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, run = clustered
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(job))
    assert discover(file, progress=False).folder == run.folder.uri
    assert discover(yaml.safe_load(file.read_text()), progress=False).folder == run.folder.uri
    other = discover(file, classes=3, output=tmp_path / "out", progress=False)
    assert other.images["cls"].max() == 2
    assert len(other.class_names["tile"]) == 3


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, results: Results) -> list[tuple[Job, str | None]]:
    """The jobs that would have been run, and the address of Ray."""
    jobs: list[tuple[Job, str | None]] = []

    def run(job: Job, address: str | None, *_: object) -> Folder:
        jobs.append((job, address))
        return Folder(results.folder)

    monkeypatch.setattr("ancd_ray.jobs.run.run", run)
    monkeypatch.setattr("ancd_ray.jobs.classify.run.run", run)
    return jobs


def test_arguments_are_keys_of_the_job(planned: list[tuple[Job, str | None]], demo_root: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_root / "tile/test/hole", tmp_path / "parts/new")
    shutil.copytree(demo_root / "tile/train/good", tmp_path / "parts/fine")
    discover(tmp_path / "parts", classes="auto", normals="fine", address="auto", progress=False)
    discover(tmp_path / "parts", classes=4, detector="precomputed", masks="m/{stem}.png", output="there: #1")
    discover(tmp_path / "parts", normals="fine", overrides=["classes.novel=7", "discovery.method=ward"])
    first, second, third = [job for job, _ in planned]
    assert [address for _, address in planned] == ["auto", None, None]
    assert first.data.root == str(tmp_path / "parts")
    assert (first.name, first.output_root, first.classes.novel) == ("parts", "runs/parts", "auto")
    assert (first.detector.name, first.discovery.method) == ("patchcore", "spectral")
    (product,) = first.data.products
    assert product.model_dump()["normals"] == "fine"
    assert (second.detector.name, second.classes.novel, second.output_root) == ("precomputed", 4, "there: #1")
    assert second.data.products[0].model_dump()["masks"] == ("m/{stem}.png",)
    assert (third.classes.novel, third.discovery.method) == (7, "ward")


def _write(tmp_path: Path, **keys: Any) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"name": "x", "data": {"root": str(tmp_path), "products": []}, **keys}))
    return file


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda _, tmp: discover(tmp / "nowhere"), "nowhere: no such folder"),
        (lambda _, tmp: discover(tmp / "nowhere.yaml"), "No such file"),
        (lambda _, tmp: discover({"name": "x", "data": {"root": "/x", "products": []}}), "data.products"),
        (lambda _, tmp: discover(tmp, overrides=["train.epochs"]), "no image of a known type"),
        (lambda root, _: discover(root / "tile", detector="patchcor"), "did you mean 'patchcore'"),
        (lambda root, _: discover(root / "tile", classes=-1), "classes.novel"),
        (lambda root, _: discover(root / "tile", overrides=["trian.epochs=1"]), "did you mean 'train'"),
        (lambda _, tmp: discover(tmp / "job.yaml", normals="good"), "belong to a folder"),
        (lambda root, _: classify(root / "tile", "nowhere"), "neither a model"),
        (lambda root, _: classify([root / "x.png"], "nowhere", "out"), "with output= they are one folder"),
        (lambda root, _: classify(root / "tile", root, overrides=["a=1"]), "give output= as well"),
    ],
)
def test_errors_are_lines(call: Callable[[Path, Path], object], said: str, demo_root: Path, tmp_path: Path) -> None:
    with pytest.raises(AncdError) as caught:
        call(demo_root, tmp_path)
    (line,) = [line for line in str(caught.value).splitlines() if said in line]
    assert len(line) < 300


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mode": "classify", "model": "m"}, "see ancd_ray.classify"),
        (
            {"detector": {"name": "patchcore"}, "sweep": {"parameters": {"merge.tau_alpha": {"grid": [1, 2]}}}},
            "ancd-ray submit",
        ),
    ],
)
def test_other_kinds_of_jobs_are_refused(keys: dict[str, Any], said: str) -> None:
    products = [{"name": "a", "layout": "folder"}]
    with pytest.raises(AncdError, match=said):
        discover({"name": "x", "data": {"root": "/x", "products": products}, **keys})


def test_credentials_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AncdError("s3://KEY:SECRET@bucket: no")

    monkeypatch.setattr("ancd_ray.jobs.draft.draft_job", fail)
    with pytest.raises(AncdError) as caught:
        discover("s3://KEY:SECRET@bucket")
    assert str(caught.value) == "s3://***@bucket: no"


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(AncdError, match="not a run folder"):
        _ = Results(str(tmp_path)).images


# --- classify ---------------------------------------------------------------------------------------------------


def test_paths_bytes_and_pixels(results: Results, tmp_path: Path) -> None:
    expected = results.images
    paths = [Path(uri) for uri in expected["uri"][:3]]
    pixels = cv2.cvtColor(cv2.imread(str(paths[2])), cv2.COLOR_BGR2RGB)
    (tmp_path / "broken.png").write_bytes(b"no image")
    named = ImageInput(paths[1].read_bytes(), "line 3")
    found = classify([paths[0], str(tmp_path / "broken.png"), named, pixels, paths[0]], results)
    assert isinstance(found, Predictions)
    images = found.images
    assert images.index.tolist() == [0, 2, 3, 4], "their places"
    assert images["uri"].tolist() == [str(paths[0]), "line 3", "image-3", str(paths[0])]
    assert images["class"].tolist() == expected["class"][[0, 1, 2, 0]].tolist()
    for mine, theirs in zip(images["probs"], expected["probs"][[0, 1, 2, 0]], strict=True):
        assert mine.tolist() == theirs.tolist()
    assert images.columns.tolist() == expected.columns.tolist()
    assert found.regions.columns.tolist() == results.regions.columns.tolist()
    boxes = ["x0", "y0", "x1", "y1", "cls"]
    first = results.regions[results.regions["image_id"] == expected["image_id"][0]]
    assert found.regions[found.regions["image_id"] == images["image_id"][0]][boxes].values.tolist() == (
        first[boxes].values.tolist()
    )
    assert found.quarantine["uri"].to_dict() == {1: str(tmp_path / "broken.png")}


def test_one_image_many_images_or_none(results: Results) -> None:
    model = results.model()
    path = results.images["uri"][0]
    pixels = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    expected = results.images["class"][0]
    for one in (path, Path(path), Path(path).read_bytes(), pixels, ImageInput(path), np.stack([pixels])):
        assert classify(one, model).images["class"].tolist() == [expected]
    nothing = classify([], model)
    assert nothing.images.empty
    assert nothing.images.columns.tolist() == results.images.columns.tolist()
    with pytest.raises(AncdError, match="uint8"):
        classify(pixels / 255.0, model)


def test_a_folder_in_memory_is_more_than_one_batch(
    results: Results, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ancd_ray.jobs.in_memory._AT_ONCE", 10)
    found = classify(demo_root / "tile/test", results.folder)
    assert found.images.set_index("uri")["class"].to_dict() == results.images.set_index("uri")["class"].to_dict()


def test_an_archive_as_a_job(results: Results, demo_root: Path, tmp_path: Path) -> None:
    for kind in ("hole", "good"):
        shutil.copytree(demo_root / f"tile/test/{kind}", tmp_path / f"today/{kind}")
    expected = {(*Path(uri).parts[-2:],): name for uri, name in results.images[["uri", "class"]].values}

    def run(model: Any) -> Results:
        return classify(
            tmp_path / "today", model, tmp_path / "out", overrides=["resources.in_process_below=1000"], progress=False
        )

    first = run(results)
    assert isinstance(first, Results)
    assert len(first.images) == 10, "also those in a folder named `good`"
    assert all(expected[(*Path(uri).parts[-2:],)] == name for uri, name in first.images[["uri", "class"]].values)
    assert first.images.columns.tolist() == results.images.columns.tolist()
    assert first.regions["x0"].isna().all()
    assert first.metrics == {"tile": {"image": {"nmi": None, "ari": None, "f1": None}}}
    assert "10 images" in first._repr_html_()
    assert first.model().class_names == results.class_names["tile"]
    assert first.report.is_file()
    shutil.copy(demo_root / "tile/test/stain/000.png", tmp_path / "today/new.png")
    second = run(results.model())
    assert second.summary["new"] == 1, "it is the same model, so the others are known"
    assert len(second.images) == 11
    assert run(Path(results.folder)) == second


def test_models_of_several_products(
    planned: list[tuple[Job, str | None]], results: Results, demo_root: Path, tmp_path: Path
) -> None:
    """Each product has the model of its name, unless one is named for all."""
    for name in ("left", "right"):
        shutil.copytree(demo_root / "tile/test", tmp_path / name / "test")
    classify(tmp_path, results, "out")
    classify(tmp_path, results, "out", product="tile", address="auto")
    classify(tmp_path / "left", results, "out")
    many, one, single = [job for job, _ in planned]
    assert (many.model, one.model) == (results.folder, f"{results.folder}/models/tile")
    assert [product.name for product in many.data.products] == ["left", "right"]
    assert [product.name for product in single.data.products] == ["tile"], "the name that its model has"
    assert {job.mode for job in (many, one, single)} == {"classify"}
    assert planned[1][1] == "auto"


# --- importing --------------------------------------------------------------------------------------------------


def test_the_package_imports_nothing_before_it_is_asked() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'numpy', 'pydantic', 'pandas'}"
    code = f"""
import sys, ancd_ray
print(sys.modules.keys() & {heavy}, set(ancd_ray.__all__) <= set(dir(ancd_ray)))
from ancd_ray import AncdError, discover
try:
    discover("nowhere")
except AncdError as error:
    print(error, sys.modules.keys() & {{'torch', 'ray', 'mlflow', 'sklearn', 'scipy'}})
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    first, second = ran.stdout.splitlines()
    assert first == "set() True"
    assert second.endswith("nowhere: no such folder set()")


def test_every_name_is_there() -> None:
    assert all(getattr(ancd_ray, name) for name in ancd_ray.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = ancd_ray.no_such_name
