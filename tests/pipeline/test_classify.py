"""`mode: classify`: a model applied to an archive that grows, partition by partition."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, validate
from ancd_ray.data.store import Folder
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.classify import publish
from ancd_ray.jobs.classify.plan import make
from ancd_ray.jobs.classify.run import run
from ancd_ray.models.classify_images import UNCERTAIN
from tests.conftest import Ran


def _classify(archive: Path, output: Path, place: Folder | str, **keys: Any) -> Job:
    document = {
        "name": "night",
        "mode": "classify",
        "model": str(place),
        "data": {"root": str(archive), "products": [{"name": "tile", "layout": "mvtec", "path": "tile"}]},
        "resources": {"in_process_below": 100_000},
        "output": str(output),
        **keys,
    }
    return validate(document)


def _run(job: Job) -> tuple[Folder, dict[str, Any]]:
    display = Display("test")
    with display.running():
        folder = run(job, None, display)
    return folder, folder.read_json("summary.json")


def _rows(folder: Folder, table: str) -> dict[str, dict[str, Any]]:
    key = "region_id" if table == "region_predictions" else "image_id"
    rows = ds.dataset(str(folder.path / table)).to_table().to_pylist()
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found


def _read_published(output: Path, table: str) -> dict[str, dict[str, Any]]:
    key = "region_id" if table == "region_predictions" else "image_id"
    rows = DeltaTable(str(output / "archive" / table)).to_pyarrow_table().to_pylist()
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture
def archive(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the small archive, to be changed."""
    shutil.copytree(demo_root, tmp_path / "archive", copy_function=shutil.copy2)
    return tmp_path / "archive"


@pytest.mark.parametrize("keep", ["none", "uncertain", "all"])
def test_one_pass_gives_the_rows_of_the_stages(
    finished: tuple[Job, Ran], demo_root: Path, tmp_path: Path, keep: str
) -> None:
    discovered = finished[1].folder
    (step,) = make(_classify(demo_root, tmp_path, discovered, keep=keep)).steps
    folder, summary = _run(_classify(demo_root, tmp_path, discovered, keep=keep))
    images, regions = (_rows(folder, table) for table in ("image_predictions", "region_predictions"))
    assert regions == _rows(discovered, "region_predictions")
    assert all(0 < row.pop("brightness") < 255 for row in images.values()), "only one pass has the pixels in its hands"
    expected = _rows(discovered, "image_predictions")
    assert {row.pop("brightness") for row in expected.values()} == {None}
    assert images == expected
    assert (summary["images"], summary["new"], summary["quarantined"]) == (25, 25, 0)
    kept = ds.dataset(str(step.folder(Folder(str(tmp_path))).path / "regions")).to_table().num_rows
    n_uncertain = sum(row["confidence"] < UNCERTAIN or row["is_unknown"] for row in regions.values())
    assert n_uncertain > 0
    assert kept == {"none": 0, "uncertain": n_uncertain, "all": len(regions)}[keep]


def test_only_what_is_new_is_classified(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    job = _classify(archive, tmp_path / "out", finished[1].folder)
    first, _ = _run(job)
    again, summary = _run(job)
    assert again.uri == first.uri
    assert summary["stages"] == [], "what is published is not looked at again"
    added, changed, deleted = (archive / f"tile/test/good/{name}.png" for name in ("new", "000", "001"))
    shutil.copy(archive / "tile/test/good/002.png", added)
    shutil.copy(next((archive / "tile/test").glob("s*/*.png")), changed)
    deleted.unlink()
    plan = make(job)
    (product,) = plan.products
    assert "2 new images, 23 known, 1 of 24 images are gone" in " ".join(product.describe())
    before = _read_published(tmp_path / "out", "image_predictions")
    folder, summary = _run(job)
    assert [(stage["name"], stage["cached"]) for stage in summary["stages"]] == [("classify_images", False)]
    assert (summary["images"], summary["new"]) == (25, 2)
    assert {row["uri"] for row in _rows(folder, "image_predictions").values()} == {str(added), str(changed)}
    after = _read_published(tmp_path / "out", "image_predictions")
    paths = {row["uri"] for row in after.values()}
    assert str(added) in paths
    assert str(deleted) not in paths
    kept = before.keys() & after.keys()
    differ = {after[i]["uri"] for i in kept if {**after[i], "state": ""} != {**before[i], "state": ""}}
    assert len(kept) == 24
    assert differ == {str(changed)}
    regions = _read_published(tmp_path / "out", "region_predictions")
    assert {row["image_id"] for row in regions.values()} <= after.keys()
    assert _rows(folder, "region_predictions").keys() <= regions.keys()
    again, summary = _run(job)
    assert summary["stages"] == []
    assert again.uri == folder.uri
    version = DeltaTable(str(tmp_path / "out/archive/image_predictions")).version()
    assert version == 2, "the first run, the second one with a change, and none for reruns"


def test_an_image_that_comes_back_is_there_once(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    job = _classify(archive, tmp_path / "out", finished[1].folder)
    first, _ = _run(job)
    image = archive / "tile/test/good/000.png"
    shutil.move(image, tmp_path / "away.png")
    before = _read_published(tmp_path / "out", "image_predictions")
    shutil.rmtree(tmp_path / "out/steps")
    _, summary = _run(job)
    assert (summary["images"], summary["stages"]) == (24, []), "the rows that are left come from the tables"
    without = _read_published(tmp_path / "out", "image_predictions")
    assert len(without) == 24
    assert all({**row, "state": ""} == {**before[i], "state": ""} for i, row in without.items())
    shutil.move(tmp_path / "away.png", image)
    back, summary = _run(job)
    assert summary["images"] == 25
    assert _read_published(tmp_path / "out", "image_predictions") == before
    assert back.uri == first.uri


def test_damaged_files_are_quarantined_once(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    (archive / "tile/test/good/000.png").write_bytes(b"no image")
    (archive / "tile/test/good/001.png").write_bytes((archive / "tile/test/good/002.png").read_bytes()[:-300])
    folder, summary = _run(_classify(archive, tmp_path / "out", finished[1].folder))
    assert (summary["images"], summary["quarantined"]) == (25, 2)
    assert len(_rows(folder, "image_predictions")) == 23
    assert {row["uri"].rpartition("/")[2] for row in _rows(folder, "quarantine").values()} == {"000.png", "001.png"}


def test_a_killed_publication_is_made_good(
    finished: tuple[Job, Ran], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the tables: nothing is missing and nothing there twice after the next run."""
    job = _classify(archive, tmp_path / "out", finished[1].folder)
    tables = publish.TABLES
    monkeypatch.setattr(publish, "TABLES", (*tables[:1], "killed"))
    with pytest.raises(KeyError):
        _run(job)
    assert not (tmp_path / "out/archive/image_predictions").exists()
    monkeypatch.setattr(publish, "TABLES", tables)
    folder, _ = _run(job)
    for table in ("image_predictions", "region_predictions"):
        assert _read_published(tmp_path / "out", table).keys() == _rows(folder, table).keys()
        assert DeltaTable(str(tmp_path / "out/archive" / table)).version() <= 2


def test_published_tables_are_read_by_other_programs(
    finished: tuple[Job, Ran], demo_root: Path, tmp_path: Path
) -> None:
    folder, summary = _run(_classify(demo_root, tmp_path, finished[1].folder))
    place = str(tmp_path / "archive/image_predictions")
    frame = pl.read_delta(place).group_by("cls").len().sort("cls")
    images = DeltaTable(place).to_pyarrow_dataset()
    counted = duckdb.from_arrow(images).query("it", "select cls, count(*) from it group by cls order by cls")
    assert counted.fetchall() == frame.rows()
    classes = summary["products"][0]["classes"]
    assert sorted(n for n in classes.values() if n) == sorted(n for _, n in frame.rows())
    assert len(_rows(folder, "image_predictions")) == sum(classes.values())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": None}, "model: is missing"),
        ({"train": {"epochs": 3}}, "train: is that of the model"),
        ({"mode": "discover", "detector": {"name": "patchcore"}}, "model: is used with `mode: classify`"),
    ],
)
def test_keys_that_do_not_fit_the_mode(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        _classify(tmp_path, tmp_path, "model", **keys)
