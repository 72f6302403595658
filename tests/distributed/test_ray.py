"""The same job through Ray Data and Ray Train: the results of one process, whatever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.jobs.plan import make
from tests.conftest import REPO, Ran
from tests.processes import children_named

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _rows(run: Ran, table: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = ds.dataset(str(run.folder.path / table)).to_table().to_pylist()
    return rows


@pytest.mark.usefixtures("ray_of_the_tests")
def test_ray_gives_what_one_process_gives(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], finished: tuple[Job, Ran], tmp_path: Path
) -> None:
    _, alone = finished
    run = run_job(small_job(tmp_path / "out", "resources.in_process_below=0"))
    for table, key in (("image_predictions", "image_id"), ("region_predictions", "region_id")):
        one, other = _rows(alone, table), _rows(run, table)
        assert [row[key] for row in one] == [row[key] for row in other]
        assert [row["cls"] for row in one] == [row["cls"] for row in other]
        for a, b in zip(one, other, strict=True):  # another number of threads adds up in another order
            assert a["probs"] == pytest.approx(b["probs"], abs=2e-3)


@pytest.mark.usefixtures("ray_of_the_tests")
def test_a_killed_worker_of_training_resumes(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], tmp_path: Path
) -> None:
    cheap = ("detector={name: ground_truth}", "data.base=null")
    job = small_job(tmp_path / "out", "train.workers=2", "train.epochs=40", "train.checkpoint_every=2", *cheap)
    folder = make(job).products[0].step_of("trained").folder(make(job).root)
    killed: list[int] = []

    def kill_one_worker() -> None:
        while not folder.names() or not any(name.startswith("epoch-") for name in (folder / "checkpoints").names()):
            time.sleep(0.1)
        chosen = children_named("RayTrainWorker")[-1]
        chosen.kill()
        killed.append(chosen.pid)

    watcher = threading.Thread(target=kill_one_worker, daemon=True)
    watcher.start()
    run = run_job(job)
    watcher.join(timeout=1)
    assert killed, "nothing was killed: training was over too soon"
    assert run.summary["images"] == 25
    losses = (
        make(job).products[0].step_of("trained").folder(make(job).root).read_json("manifest.json")["values"]["losses"]
    )
    assert len(losses["total"]) == 40
    assert losses["total"][-1] < losses["total"][0]


def test_a_killed_driver_resumes(small_job: Callable[..., Job], run_job: Callable[[Job], Ran], tmp_path: Path) -> None:
    """SIGKILL while Ray works for it, with a Ray of its own as `submit` has it."""
    cheap = ("detector={name: ground_truth}", "discovery.method=ward", "data.base=null")
    job = small_job(tmp_path / "out", "resources.in_process_below=30", *cheap)
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(job))
    command = [sys.executable, "-m", "ancd_ray", "submit", str(file)]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    shards = Path(job.output_root) / "steps"
    deadline = time.monotonic() + 400
    while not list(shards.glob("catalog/*/shards/*.json")):  # detect goes through Ray as well
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    run = Path(ended.stdout.strip().splitlines()[-1])
    rows = ds.dataset(str(run / "image_predictions")).to_table()
    assert len(set(rows.column("image_id").to_pylist())) == rows.num_rows == 25


def test_ctrl_c_ends_at_once_and_leaves_nothing(small_job: Callable[..., Job], tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    for sent in (signal.SIGINT, signal.SIGTERM):
        cheap = ("detector={name: ground_truth}", "data.base=null")
        job = small_job(tmp_path / sent.name, "train.epochs=100000", *cheap)
        file.write_text(dump_resolved(job))
        process = subprocess.Popen(
            [sys.executable, "-m", "ancd_ray", "submit", str(file)], cwd=REPO, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 400
        steps = Path(job.output_root) / "steps"
        while not list(steps.glob("train/*/checkpoints/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(sent)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130
        assert said.strip().splitlines()[-1] == "stopped; the same command continues where it was"
        assert "Traceback" not in said
