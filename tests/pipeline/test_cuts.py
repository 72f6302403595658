"""Cuts of a discovery: what they give is what another discovery gives, and nothing else is computed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import parse, validate
from ancd_ray.data.store import Folder
from ancd_ray.jobs.cut import cut
from ancd_ray.jobs.cut_source import CutError
from ancd_ray.jobs.frames import Results
from ancd_ray.jobs.results import open_run, read_record
from ancd_ray.jobs.run_folder import find_complete
from ancd_ray.models.model import ImageInput, Model
from tests.conftest import Ran


def _cut(*arguments: str) -> Folder:
    result = CliRunner().invoke(main, ["classes", "cut", *arguments])
    assert result.exit_code == 0, result.output
    return Folder(result.stdout.strip().splitlines()[-1])


def _refuse(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["classes", "cut", *arguments])
    assert result.exit_code != 0
    return result.output


def _rows(folder: Folder, table: str) -> list[dict[str, Any]]:
    return [row for name in (folder / table).names() for row in (folder / table).read_table(name).to_pylist()]


def _ids(folder: Folder) -> list[str]:
    return [each["id"] for each in (folder / "models/tile").read_json("model.json")["classes"]]


def _of_regions(folder: Folder) -> dict[str, str]:
    ids = _ids(folder)
    return {row["region_id"]: ids[row["cls"]] for row in _rows(folder, "region_predictions")}


@pytest.fixture(scope="module")
def own(demo_root: Path, run_job: Callable[[Job], Ran], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A discovery whose classes are cut by the tests of this file alone."""
    document = {
        "name": "cut",
        "data": {"root": str(demo_root), "products": [{"name": "tile", "layout": "mvtec", "path": "tile"}]},
        "detector": {"name": "ground_truth"},
        "discovery": {"method": "ward"},
        "classes": {"novel": 5, "max_classes": 8},
        "resources": {"in_process_below": 100_000},
        "output": str(tmp_path_factory.mktemp("cuts") / "out"),
    }
    return run_job(validate(document))


def test_a_cut_is_the_discovery_with_that_number(own: Ran, run_job: Callable[[Job], Ran]) -> None:
    record, ids = own.folder.read_json("run.json"), _ids(own.folder)
    start = time.perf_counter()
    folder = _cut(own.folder.uri, "--k", "3")
    assert time.perf_counter() - start < 20
    job = validate(parse(own.folder.read("job.yaml"), ""), ["classes.novel=3"])
    other = run_job(job)
    assert _rows(folder, "image_predictions") == _rows(other.folder, "image_predictions")
    assert _rows(folder, "region_predictions") == _rows(other.folder, "region_predictions")
    assert [row["value"] for row in _rows(folder, "metrics")] == [
        row["value"] for row in _rows(other.folder, "metrics")
    ]
    assert find_complete(folder)
    assert own.folder.read_json("run.json") == record, "what is cut stays as it is"
    assert find_complete(own.folder)
    assert set(_ids(folder)) <= set(ids), "classes keep their ids"
    assert _cut(own.folder.uri, "--k", "3").uri == Results(own.folder.uri).cut(k=3).folder == folder.uri
    steps = {run.name for run in open_run(folder)[1].steps if not run.cached}
    assert steps <= {"cut", "classify", "merge", "evaluate"} | {run.name for run in open_run(own.folder)[1].steps}


def test_cuts_compose_and_ids_come_back(own: Ran) -> None:
    ids = _ids(own.folder)
    merged = _cut(own.folder.uri, "--merge", f"{ids[1]},{ids[2]}")
    assert len(_ids(merged)) == 4
    before, after = _of_regions(own.folder), _of_regions(merged)
    kept = {after[region] for region, class_id in before.items() if class_id in ids[1:3]}
    assert len(kept) == 1
    assert kept <= set(ids[1:3])
    assert all(after[region] == class_id for region, class_id in before.items() if class_id not in ids[1:3])
    split = _cut(merged.uri, "--split", ids[3])
    assert len(_ids(split)) == 5
    assert len(set(_ids(split)) - set(ids)) <= 1, "a part that no run has had is a new class"
    record = (read_record(split) or {})["cut"]
    assert record["changes"]["tile"] == [{"merge": [ids[1], ids[2]]}, {"split": ids[3]}]
    assert (record["of"], record["discovery"]) == (merged.uri.rpartition("/")[2], own.folder.uri.rpartition("/")[2])
    undone = _cut(split.uri, "--k", "5")
    assert _of_regions(undone) == before, "the ids of the discovery are back"
    assert (read_record(undone) or {})["cut"]["changes"]["tile"] == [{"k": 5}]


def test_a_model_of_a_cut_classifies_new_images_and_is_registered(own: Ran, demo_root: Path) -> None:
    folder = _cut(own.folder.uri, "--k", "4")
    model = Model.load((folder / "models/tile").uri)
    images = sorted((demo_root / "tile/test").glob("*/*.png"))
    inputs = [
        ImageInput(path, mask=demo_root / "tile/ground_truth" / path.parent.name / f"{path.stem}_mask.png")
        for path in images
        if path.parent.name != "good"
    ]
    found = model.predict(inputs).image_predictions.to_pylist()
    known = {row["uri"].rpartition("/tile/")[2]: row["cls"] for row in _rows(folder, "image_predictions")}
    assert len(found) >= 10
    assert [row["cls"] for row in found] == [known[row["uri"].rpartition("/tile/")[2]] for row in found]
    result = CliRunner().invoke(main, ["models", "register", folder.uri, "--name", "cut-tile"])
    assert result.exit_code == 0, result.output
    assert "models:/cut-tile/1" in result.output
    assert CliRunner().invoke(main, ["report", folder.uri]).exit_code == 0


def test_what_cannot_be_cut_is_one_line(own: Ran, finished: tuple[Job, Ran], clustered: tuple[Job, Ran]) -> None:
    run = own.folder.uri
    assert "from 1 to 8 classes, and not 9; for more, submit the job with classes.max_classes=9" in _refuse(
        run, "--k", "9"
    )
    assert "has no class 'x'; there are tile-normal, tile-c0001" in _refuse(run, "--split", "x")
    assert "needs two classes" in _refuse(run, "--merge", "1,1")
    assert "give one of" in _refuse(run, "--k", "3", "--split", "1")
    assert "has no product 'other'" in _refuse(run, "--k", "3", "--product", "other")
    fine = _cut(run, "--k", "8").uri
    assert "is a leaf of the tree" in _refuse(fine, "--split", "7")
    assert "classes of a training have no tree" in _refuse(finished[1].folder.uri, "--k", "3")
    with pytest.raises(CutError, match="from 1 to 12"):
        cut(clustered[1].folder, {"k": 13})
