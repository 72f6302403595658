"""SIGKILL of a job of `mode: classify` at every turn: the next run leaves what an undisturbed one does."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data.store import DRAFTS
from ancd_ray.jobs.classify.publish import TABLES
from tests.conftest import REPO, Ran
from tests.nights import make_job, read_published, run_night


def _kill(point: str, job: Job, file: Path) -> None:
    file.write_text(dump_resolved(job))
    command = [sys.executable, "-m", "tests.pipeline.killed_night", point, str(file)]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL, (point, ended.stderr)


def _count(output: Path, table: str) -> int:
    place = output / "archive" / table
    return DeltaTable(str(place)).to_pyarrow_table().num_rows if place.exists() else 0


@pytest.mark.slow
def test_killed_at_every_turn_of_two_nights(clustered: tuple[Job, Ran], demo_root: Path, tmp_path: Path) -> None:
    archive, output, file = tmp_path / "archive", tmp_path / "out", tmp_path / "job.yaml"
    shutil.copytree(demo_root, archive, copy_function=shutil.copy2)
    job, undisturbed = (make_job(archive, place, clustered[1].folder) for place in (output, tmp_path / "undisturbed"))
    run_night(undisturbed)

    _kill("draft", job, file)
    assert not list((output / "partitions").rglob("*.parquet"))
    assert list((output / DRAFTS).iterdir())
    _kill("partition", job, file)
    (partition,) = (output / "partitions" / "tile").glob("*.parquet")
    assert not (output / "steps").exists()
    _kill("shard", job, file)
    (marker,) = output.glob("steps/classify_images/*/shards/*.json")
    committed = marker.stat()
    _kill("region_predictions", job, file)
    assert [_count(output, table) for table in TABLES] == [0, 0, 0]
    assert marker.stat().st_mtime_ns == committed.st_mtime_ns, "the first shard was not done again"
    folder, _ = run_night(job)
    assert list((output / "partitions" / "tile").glob("*.parquet")) == [partition]
    assert not list((output / DRAFTS).iterdir())

    # the second night has a new image, a changed and a deleted one: rows are replaced
    good = archive / "tile/test/good"
    shutil.copy(good / "002.png", good / "new.png")
    shutil.copy(next((archive / "tile/test").glob("s*/*.png")), good / "000.png")
    (good / "001.png").unlink()
    expected, _ = run_night(undisturbed)
    for point in (*TABLES, "runs"):
        _kill(point, job, file)
    folder, summary = run_night(job)
    assert all(stage["cached"] for stage in summary["stages"])

    for table in TABLES:
        assert read_published(output, table) == read_published(tmp_path / "undisturbed", table)
    ids = DeltaTable(str(output / "archive/image_predictions")).to_pyarrow_table().column("image_id").to_pylist()
    assert len(set(ids)) == len(ids) == 25
    columns = ["run", "product", "images", "new", "known", "deleted", "quarantined", "partitions"]
    own, others = (
        DeltaTable(str(place / "archive/runs")).to_pyarrow_table(columns=columns).sort_by("partitions").to_pylist()
        for place in (output, tmp_path / "undisturbed")
    )
    assert own == others
    assert len(own) == 2
    assert folder.path.name == expected.path.name
    for table in ("image_predictions", "region_predictions"):
        rows = ds.dataset(str(folder.path / table)).to_table()
        assert rows.equals(ds.dataset(str(expected.path / table)).to_table())
