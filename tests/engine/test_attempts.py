"""Shards that kill their workers: attempts are counted on disk, shards are halved, and the image is left out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data.store import Folder
from ancd_ray.engine.attempts import ATTEMPTS, Attempt, Worker, WorkerKilled, list_attempts
from ancd_ray.engine.outputs import CommittedShard, Shard, ShardResult, read_finished_shard, write_part
from ancd_ray.engine.progress import StepProgress
from ancd_ray.engine.runtime import Runtime
from tests.conftest import REPO, Ran

WHY = f"killed its worker {ATTEMPTS} times"


def _shard(folder: Folder, index: int, n: int) -> Shard:
    rows = [
        {
            **{"image_id": f"{index}{i}", "product": "p", "uri": f"{index}{i}.png", "role": "query"},
            **{"width": 1, "height": 1, "orientation": 1, "digest": ""},
        }
        for i in range(n)
    ]
    return Shard(index, {"images": (folder, write_part(folder, "images", index, rows))}, n)


def _copy(*deadly: str, leaves_out: bool = True) -> Worker:
    """A worker that copies its images, and is killed by some."""

    def work(shard: Shard) -> ShardResult:
        rows = shard.rows_of("images")
        if {row["image_id"] for row in rows} & set(deadly):
            os.kill(os.getpid(), signal.SIGKILL)
        return ShardResult({"images": rows, "quarantine": []} if leaves_out else {"images": rows})

    return work


def _settle(folder: Folder, shard: Shard, worker: Worker, deadly: set[str], notes: list[str]) -> list[int]:
    """Runs attempts in this process; where SIGKILL would fall, the count stays. Returns the sizes that were tried."""
    sizes = []
    while attempts := list_attempts("step", folder, shard, notes.append):
        for attempt in attempts:
            ids = set(attempt.shard.image_ids())
            sizes.append(len(ids))
            if ids & deadly or "every" in deadly:
                attempt.folder.write_json(f"attempts/{attempt.shard.index:05d}.json", attempt.begun + 1)
            else:
                attempt.run(worker)
    return sizes


def test_a_deadly_image_is_found_by_halving(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    notes: list[str] = []
    sizes = _settle(folder, _shard(source, 3, 8), _copy(), {"35"}, notes)
    assert sizes == [8, 8, 8, 4, 4, 2, 2, 1, 1, 1, 1, 0], "three attempts at the shard and the image, one between"
    done = read_finished_shard(folder, 3)
    assert done is not None
    kept = done.parts["images"].read(folder).column("image_id").to_pylist()
    assert kept == [f"3{i}" for i in range(8) if i != 5], "in the order of the shard"
    (lost,) = done.parts["quarantine"].read(folder).to_pylist()
    assert (lost["image_id"], lost["stage"], lost["reason"]) == ("35", "step", WHY)
    assert folder.files() == ["images/part-00003.parquet", "quarantine/part-00003.parquet", "shards/00003.json"]
    assert "shard 3 of step killed its worker (attempt 2 of 3)" in notes
    assert "shard 3 of step kills its worker: 4 of its images are tried alone" in notes
    assert f"shard 3 of step: 35.png {WHY}" in notes


def test_a_shard_of_one_deadly_image_has_an_empty_part(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    assert _settle(folder, _shard(source, 0, 1), _copy(), {"00"}, []) == [1, 1, 1, 0]
    done = read_finished_shard(folder, 0)
    assert done is not None
    assert {name: part.rows for name, part in done.parts.items()} == {"images": 0, "quarantine": 1}


def test_several_deadly_images_are_found(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    _settle(folder, _shard(source, 0, 7), _copy(), {"00", "03", "06"}, [])
    done = read_finished_shard(folder, 0)
    assert done is not None
    assert done.parts["images"].read(folder).column("image_id").to_pylist() == ["01", "02", "04", "05"]
    assert done.parts["quarantine"].read(folder).column("image_id").to_pylist() == ["00", "03", "06"]


def test_a_worker_that_dies_of_anything_is_named_in_one_line(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    with pytest.raises(WorkerKilled, match="shard 2 of step killed its worker 4 times, and not because") as error:
        _settle(folder, _shard(source, 2, 2), _copy(), {"every"}, [])
    assert "\n" not in str(error.value)


def test_a_step_that_cannot_leave_out_an_image_names_it_in_one_line(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    with pytest.raises(WorkerKilled, match=f"shard 2 of step: 20.png {WHY}") as error:
        _settle(folder, _shard(source, 2, 2), _copy(leaves_out=False), {"20"}, [])
    assert "\n" not in str(error.value)


def test_an_exception_is_no_kill(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    attempt = Attempt(folder, _shard(source, 0, 2), "shard 0 of step")

    def fail(shard: Shard) -> ShardResult:
        raise KeyboardInterrupt

    for _ in range(ATTEMPTS + 1):
        with pytest.raises(KeyboardInterrupt):
            attempt.run(fail)
    assert attempt.begun == 0


def _map(folder: Folder, shards: list[Shard], *deadly: str) -> tuple[list[CommittedShard], list[str]]:
    progress = StepProgress("step", "p")
    notes: list[str] = []
    progress.note = notes.append  # type: ignore[method-assign]
    done = Runtime(cpus=2, in_process_below=0).map_shards("step", _copy(*deadly), shards, folder, progress, "images")
    assert progress.handled == progress.units == sum(shard.rows for shard in shards)
    return done, notes


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_the_tests")
def test_a_shard_that_kills_its_worker_of_ray_ends_in_quarantine(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    done, notes = _map(folder, [_shard(source, i, 4) for i in range(4)], "12")
    rows = [shard.parts["images"].read(folder).column("image_id").to_pylist() for shard in done]
    assert [len(ids) for ids in rows] == [4, 3, 4, 4]
    (lost,) = done[1].parts["quarantine"].read(folder).to_pylist()
    assert (lost["uri"], lost["reason"]) == ("12.png", WHY)
    assert notes[0] == "shard 1 of step killed its worker (attempt 1 of 3)"
    assert notes[-1] == f"shard 1 of step: 12.png {WHY}"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_the_tests")
def test_an_error_on_ray_is_one_line_and_forgets_the_attempts(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    shards = [_shard(source, i, 4) for i in range(2)]
    (tmp_path / "in" / "images" / "part-00001.parquet").unlink()
    folder.write_json("attempts/00001.json", 2)
    with pytest.raises(AncdError, match=r"part-00001.parquet.*submit the job again") as error:
        _map(folder, shards)
    assert "\n" not in str(error.value)
    assert not folder.exists("attempts/00001.json")


def test_after_an_error_another_run_begins_anew(tmp_path: Path) -> None:
    source, folder = Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out"))
    folder.write_json("attempts/00000.json", ATTEMPTS + 1)
    shards, progress = [_shard(source, 0, 2)], StepProgress("step", "p")
    with pytest.raises(WorkerKilled):
        Runtime().map_shards("step", _copy(), shards, folder, progress, "images")
    (done,) = Runtime().map_shards("step", _copy(), shards, folder, progress, "images")
    assert done.parts["images"].rows == 2


@pytest.mark.slow
def test_a_deadly_image_ends_in_quarantine_after_restarts_of_the_driver(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], tmp_path: Path
) -> None:
    overrides = ("detector={name: ground_truth}", "data.base=null", "discovery.method=linked", "classes.novel=4")
    file = tmp_path / "job.yaml"
    job = small_job(tmp_path / "out", *overrides)
    file.write_text(dump_resolved(job))
    command = [sys.executable, "-m", "tests.pipeline.deadly", str(file), "crack/000.png"]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{ATTEMPTS}\n"
    run = run_job(job)
    assert "regions" not in run.computed
    (lost,) = ds.dataset(str(run.folder.path / "quarantine")).to_table().to_pylist()
    assert lost["uri"].endswith("crack/000.png")
    assert (lost["stage"], lost["reason"]) == ("regions", WHY)
    assert ds.dataset(str(run.folder.path / "image_predictions")).count_rows() == 24
