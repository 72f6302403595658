"""The published table `runs`: a row for each finished job and product, and never a second one."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from deltalake import DeltaTable

from ancd_ray import __version__
from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.jobs.classify import run as module
from tests.conftest import Ran
from tests.nights import make_job, read_published, run_night


def _read(output: Path) -> list[dict[str, Any]]:
    rows = DeltaTable(str(output / "archive/runs")).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: (row["partitions"], row["finished_at"]))


@pytest.fixture
def archive(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the small archive, to be changed."""
    shutil.copytree(demo_root, tmp_path / "archive", copy_function=shutil.copy2)
    return tmp_path / "archive"


def test_a_row_for_each_night_that_found_something(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    output, good = tmp_path / "out", archive / "tile/test/good"
    job = make_job(archive, output, finished[1].folder)
    before = datetime.now(timezone.utc)
    first, summary = run_night(job)
    run_night(job)
    (row,) = _read(output)
    assert before < row["started_at"] < row["finished_at"] < datetime.now(timezone.utc)
    assert row["seconds"] > 0
    assert row["model"] == summary["products"][0]["model"]
    told = {key: row[key] for key in ("product", "run", "job", "images", "new", "known", "deleted", "quarantined")}
    assert told == {
        **{"product": "tile", "run": first.path.name, "job": "night"},
        **{"images": 25, "new": 25, "known": 0, "deleted": 0, "quarantined": 0},
    }
    assert row["version"] == __version__
    shutil.copy(good / "002.png", good / "new.png")
    (good / "broken.png").write_bytes(b"no image")
    shutil.copy(next((archive / "tile/test").glob("s*/*.png")), good / "000.png")
    (good / "001.png").unlink()
    for _ in range(2):
        second, _ = run_night(job)
    rows = _read(output)
    assert [row["run"] for row in rows] == [first.path.name, second.path.name]
    counts = {key: rows[1][key] for key in ("images", "new", "known", "deleted", "quarantined", "partitions")}
    assert counts == {"images": 26, "new": 3, "known": 23, "deleted": 1, "quarantined": 1, "partitions": 2}
    assert CliRunner().invoke(main, ["compact", str(output)]).exit_code == 0
    assert len(read_published(output, "runs")) == 2


def test_another_job_over_the_same_output_has_its_own_row(
    finished: tuple[Job, Ran], archive: Path, tmp_path: Path
) -> None:
    for name in ("night", "day"):
        run_night(make_job(archive, tmp_path / "out", finished[1].folder, name=name))
    counts = {row["job"]: (row["new"], row["known"]) for row in _read(tmp_path / "out")}
    assert counts == {"night": (25, 0), "day": (0, 25)}


def test_a_job_that_ended_before_its_row_is_made_good(
    finished: tuple[Job, Ran], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(archive, tmp_path / "out", finished[1].folder)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "publish_run", die)
    with pytest.raises(KeyboardInterrupt):
        run_night(job)
    monkeypatch.undo()
    _, summary = run_night(job)
    assert summary["new"] == 0, "of this process"
    (row,) = _read(tmp_path / "out")
    assert (row["new"], row["known"]) == (25, 0)
