"""Bad input of `mode: classify`: images, models, partitions and published tables that are not as they should be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable, write_deltalake

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.engine import steps
from ancd_ray.engine.context import StageError
from ancd_ray.jobs.classify import run as classify_run
from ancd_ray.jobs.classify import runs, weights
from ancd_ray.jobs.classify.plan import make
from tests.conftest import REPO, Ran
from tests.nights import TABLES, make_job, read_published, run_night


@pytest.fixture
def archive(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the small archive, to be changed."""
    shutil.copytree(demo_root, tmp_path / "archive", copy_function=shutil.copy2)
    return tmp_path / "archive"


def test_a_night_of_one_broken_image_ends_no_job(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    job = make_job(archive, tmp_path / "out", finished[1].folder)
    run_night(job)
    (archive / "tile/test/good/new.png").write_bytes(b"no image")
    _, summary = run_night(job)
    assert (summary["images"], summary["new"], summary["quarantined"]) == (26, 1, 1)
    assert len(read_published(tmp_path / "out", "quarantine")) == 1


def test_an_archive_that_is_mostly_broken_is_not_published(
    finished: tuple[Job, Ran], archive: Path, tmp_path: Path
) -> None:
    job = make_job(archive, tmp_path / "out", finished[1].folder)
    run_night(job)
    rows = read_published(tmp_path / "out", "image_predictions")
    for path in (archive / "tile/test").glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(StageError) as error:
        run_night(job)
    assert "25 of 25 images of product tile cannot be used, more than resources.max_quarantined=0.5" in str(error.value)
    assert "\n" not in str(error.value)
    assert read_published(tmp_path / "out", "image_predictions") == rows
    _, summary = run_night(make_job(archive, tmp_path / "out", finished[1].folder, resources={"max_quarantined": 1}))
    assert summary["quarantined"] == 25


def _copy_model(finished: tuple[Job, Ran], target: Path, **changes: Any) -> Path:
    """A model with other values of some keys of its description."""
    shutil.copytree(finished[1].folder.path / "models" / "tile", target)
    file = target / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return target


def _submit(job: Job, tmp_path: Path, command: str = "submit") -> Result:
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(job))
    result = CliRunner().invoke(main, [command, str(file)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _get_error(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code != 0
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_a_model_of_another_format(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    model = _copy_model(finished, tmp_path / "model", format=99)
    for command in ("plan", "submit"):
        result = _submit(make_job(archive, tmp_path / "out", model), tmp_path, command)
        assert result.exit_code == 2
        assert re.search(rf"{model} has format 99, this version reads \d; run its discovery again", _get_error(result))
    assert not (tmp_path / "out/partitions").exists()


def test_a_model_of_other_weights_classifies_nothing(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    good = make_job(archive, output, finished[1].folder)
    run_night(good)
    rows = read_published(output, "image_predictions")
    model = _copy_model(finished, tmp_path / "model")
    document = json.loads((model / "classifier.json").read_text())
    (model / "classifier.json").write_text(json.dumps(document | {"backbone_digest": "0" * 64}))
    shutil.copy(archive / "tile/test/good/000.png", archive / "tile/test/good/new.png")
    result = _submit(make_job(archive, output, model), tmp_path)
    assert "model of tile: the weights of lite are not those it was made with" in _get_error(result)
    assert "run its discovery again" in _get_error(result)
    assert read_published(output, "image_predictions") == rows
    _, summary = run_night(good)
    assert (summary["images"], summary["quarantined"]) == (26, 0)


def test_a_model_of_other_weights_does_not_stop_the_others(
    clustered: tuple[Job, Ran], archive: Path, tmp_path: Path
) -> None:
    """Known before any image is read, with one load of the backbone for all products."""
    models = tmp_path / "models"
    for name in ("tile", "plate", "ring"):
        shutil.copytree(clustered[1].folder.path / "models/tile", models / name)
    file = models / "plate/classifier.json"
    whole = file.read_text()
    file.write_text(json.dumps(json.loads(whole) | {"backbone_digest": "0" * 64}))
    products = [{"name": name, "layout": "mvtec", "path": "tile"} for name in ("tile", "plate", "ring")]
    data = {"root": str(archive), "products": products}
    job = make_job(archive, tmp_path / "out", f"{models}/{{product}}", data=data, alerts={})
    with patch.object(weights, "load_backbone", wraps=weights.load_backbone) as load:
        result = _submit(job, tmp_path)
    assert load.call_count == 1
    assert result.exit_code == 3
    folder = Path(result.stdout.splitlines()[-1])
    summary = json.loads((folder / "summary.json").read_text())
    assert {each["product"]: each["images"] for each in summary["products"]} == {"tile": 25, "ring": 25}
    (left_out,) = json.loads((folder / "night.json").read_text())["left_out"]
    assert left_out["product"] == "plate"
    assert "the weights of lite are not those it was made with (digest " in left_out["reason"]
    assert left_out["reason"] in (folder / "night.html").read_text()
    file.write_text(whole)
    _, summary = run_night(job)
    assert [each["new"] for each in summary["products"]] == [0, 25, 0], "made good by the next night"
    with patch.object(weights, "load_backbone", side_effect=AssertionError("nothing is new")):
        run_night(job)


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_a_damaged_listing_of_a_partition(
    clustered: tuple[Job, Ran], archive: Path, tmp_path: Path, keep: float
) -> None:
    output = tmp_path / "out"
    job = make_job(archive, output, clustered[1].folder)
    run_night(job)
    shutil.copy(archive / "tile/test/good/000.png", archive / "tile/test/good/new.png")
    run_night(job)
    rows = {table: read_published(output, table) for table in TABLES}
    (output / "partitions/tile/index.parquet").unlink()  # with it the file is not needed
    file = sorted((output / "partitions/tile").glob("0*.parquet"))[0]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    for command in ("plan", "submit"):
        line = _get_error(_submit(job, tmp_path, command))
        assert f"{file}: the listing of this partition is damaged (" in line
        assert "delete the file and submit the job again" in line
    assert {table: read_published(output, table) for table in TABLES} == rows
    file.unlink()
    _, summary = run_night(job)
    assert summary["images"] == 26
    assert all(stage["cached"] for stage in summary["stages"]), "what is known of its images is found again"
    for table in ("image_predictions", "region_predictions"):
        own = DeltaTable(str(output / "archive" / table)).to_pyarrow_table()
        assert own.num_rows == len(rows[table])
        assert len(set(own.column(table.split("_")[0] + "_id").to_pylist())) == own.num_rows


def test_a_listing_whose_other_columns_are_damaged(clustered: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    """The plan reads ids and marks alone; the worker says the same of the rest."""
    job = make_job(archive, tmp_path / "out", clustered[1].folder)
    plan = make(job)
    (partition,) = plan.products[0].partitions
    partition.write()
    file = Path(partition.file)
    pq.write_table(pq.read_table(file).drop_columns(["uri"]), file)
    line = _get_error(_submit(job, tmp_path))
    assert f"{file}: the listing of this partition is damaged (" in line


@pytest.mark.parametrize("table", ["image_predictions", "region_predictions"])
@pytest.mark.parametrize("edit", ["rows", "all", "twice", "missing", "garbage", "empty"])
def test_a_published_table_that_another_hand_has_changed(
    clustered: tuple[Job, Ran], archive: Path, tmp_path: Path, table: str, edit: str
) -> None:
    output = tmp_path / "out"
    job = make_job(archive, output, clustered[1].folder)
    run_night(job)
    shutil.copy(archive / "tile/test/good/000.png", archive / "tile/test/good/new.png")
    run_night(job)
    rows = read_published(output, table)
    place = output / "archive" / table
    published = DeltaTable(str(place))
    file = next(place.glob("product=tile/*.parquet"))
    if edit == "rows":
        states = published.to_pyarrow_table().select(["state", "image_id"]).to_pylist()
        largest = max(states, key=lambda row: [each["state"] for each in states].count(row["state"]))
        published.delete(f"image_id = '{largest['image_id']}'")
    elif edit == "all":
        published.delete()
    elif edit == "twice":
        write_deltalake(str(place), published.to_pyarrow_table().slice(0, 1), mode="append")
    elif edit == "missing":
        file.unlink()
    else:
        file.write_bytes(b"" if edit == "empty" else file.read_bytes()[:-40])
    shown = _submit(job, tmp_path)
    assert shown.exit_code == 0, shown.stderr
    assert read_published(output, table) == rows
    if edit != "all":  # which looks like a table that is not published yet
        assert f"{place}: " in shown.stderr.replace("\n", "")
        assert "published anew" in shown.stderr
    version = DeltaTable(str(place)).version()
    run_night(job)
    assert DeltaTable(str(place)).version() == version


@pytest.mark.slow
def test_two_nights_at_once_exclude_each_other(clustered: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    """Of two processes that start together one does the work, the other says why it does not."""
    output, file = tmp_path / "out", tmp_path / "job.yaml"
    file.write_text(dump_resolved(make_job(archive, output, clustered[1].folder)))
    command = [sys.executable, "-m", "ancd_ray", "submit", str(file)]
    nights = [
        subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [night.communicate(timeout=300) for night in nights]
    (worked,) = [shown for night, shown in zip(nights, said, strict=True) if night.returncode == 0]
    (refused,) = [shown for night, shown in zip(nights, said, strict=True) if night.returncode != 0]
    assert Path(worked[0].strip().splitlines()[-1], "summary.json").is_file()
    assert "another job writes here" in refused[1].replace("\n", " ")
    assert "Traceback" not in refused[1]
    uris = [row["uri"] for row in DeltaTable(str(output / "archive/image_predictions")).to_pyarrow_table().to_pylist()]
    assert len(uris) == len(set(uris)) == 25
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_clock_that_jumps_back(
    clustered: tuple[Job, Ran], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second night is years before the first one."""

    class Future(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Future:
            now = datetime.now(tz) + timedelta(days=2000)
            return cls(*now.timetuple()[:6], tzinfo=tz)

    good = archive / "tile/test/good"
    jobs = [make_job(archive, tmp_path / name, clustered[1].folder) for name in ("jumps", "steady")]
    with monkeypatch.context() as jumped:
        for module in (steps, runs, classify_run):
            jumped.setattr(module, "datetime", Future)
        run_night(jobs[0])
    for path in (tmp_path / "jumps").rglob("*"):
        os.utime(path, (4e9, 4e9))
    run_night(jobs[1])
    shutil.copy(good / "002.png", good / "new.png")
    shutil.copy(next((archive / "tile/test").glob("s*/*.png")), good / "000.png")
    (good / "001.png").unlink()
    folders = [run_night(job)[0] for job in jobs]
    for table in TABLES:
        assert read_published(tmp_path / "jumps", table) == read_published(tmp_path / "steady", table)
    assert folders[0].path.name == folders[1].path.name
    history = DeltaTable(str(tmp_path / "jumps/archive/runs")).to_pyarrow_table().sort_by("partitions").to_pylist()
    assert [row["new"] for row in history] == [25, 2]
    assert history[1]["finished_at"] < history[0]["finished_at"], "the clock has jumped"
    assert all(row["seconds"] > 0 for row in history)
    assert CliRunner().invoke(main, ["compact", str(tmp_path / "jumps"), "--older-than", "0h"]).exit_code == 0
    assert CliRunner().invoke(main, ["clean", str(tmp_path / "jumps"), "--keep", "1"]).exit_code == 0
    _, summary = run_night(jobs[0])
    assert (summary["images"], summary["new"]) == (25, 0)


def test_an_archive_that_has_lost_half_of_its_images(clustered: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    job = make_job(archive, tmp_path / "out", clustered[1].folder)
    run_night(job)
    for path in sorted((archive / "tile/test").glob("*/*.png"))[:12]:
        path.unlink()
    for command in ("plan", "submit"):
        result = _submit(job, tmp_path, command)
        assert result.exit_code == 0, result.stderr
        assert "0 new images, 13 known, 12 of 25 images are gone" in " ".join(result.output.split())
    assert len(read_published(tmp_path / "out", "image_predictions")) == 13


def test_one_folder_as_two_products_has_two_rows_an_image(
    clustered: tuple[Job, Ran], archive: Path, tmp_path: Path
) -> None:
    """An image is one of a product: its class is that of the product's model."""
    products = [{"name": name, "layout": "mvtec", "path": "tile"} for name in ("tile", "tile-again")]
    model = clustered[1].folder.path / "models/tile"
    run_night(make_job(archive, tmp_path / "out", model, data={"root": str(archive), "products": products}))
    table = DeltaTable(str(tmp_path / "out/archive/image_predictions")).to_pyarrow_table()
    own, again = (table.filter(pc.equal(table.column("product"), name)) for name in ("tile", "tile-again"))
    assert own.num_rows == again.num_rows == 25
    assert len(set(table.column("image_id").to_pylist())) == 50
    assert dict(zip(*(own.column(key).to_pylist() for key in ("uri", "cls")), strict=True)) == dict(
        zip(*(again.column(key).to_pylist() for key in ("uri", "cls")), strict=True)
    )
