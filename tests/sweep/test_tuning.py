"""Trials on Ray: stopped early, out of time, broken, two at once, of several workers; and nothing stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs.sweep.planning import build_search_space
from ancd_ray.jobs.sweep.trial import read_records
from tests.processes import children_named

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("ray_of_the_tests")]

SweepOf = Callable[..., Job]
RunSweep = Callable[[Job], tuple[Folder, str]]


def _parameters(*lambdas: float) -> dict[str, object]:
    return {"train.lambda": {"grid": list(lambdas)}, "merge.tau_alpha": {"grid": [10, 100]}}


def test_asha_stops_what_stays_vague(small_sweep: SweepOf, run_sweep: RunSweep, tmp_path: Path) -> None:
    lambdas = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    job = small_sweep(tmp_path, "train.epochs=9", products=["tile"], parameters=_parameters(*lambdas), scheduler="asha")
    run_sweep(job)
    space = build_search_space(job)
    ended = read_records(space.records)
    assert {record.status for record in ended.values()} == {"done", "stopped"}
    for trial in space.trials:
        trained = Output.find(trial.plan.step_of("trained").folder(space.plan.root))
        assert (trained is not None) == (ended[trial.id].status == "done")
    stopped = [record for record in ended.values() if record.status == "stopped"]
    assert all("asha" in (record.reason or "") for record in stopped)
    before = {path: path.stat().st_mtime_ns for path in space.records.path.iterdir()}
    run_sweep(job)
    assert {path: path.stat().st_mtime_ns for path in space.records.path.iterdir()} == before


def test_a_killed_worker_is_made_up_for_and_a_broken_trial_is_a_row(
    small_sweep: SweepOf, run_sweep: RunSweep, tmp_path: Path
) -> None:
    rates = {"train.lr": {"grid": [0.01, 1e30]}}
    job = small_sweep(tmp_path, "train.epochs=60", "train.checkpoint_every=2", products=["tile"], parameters=rates)
    killed: list[int] = []

    def kill_one() -> None:
        while not list(tmp_path.glob("steps/train/*/checkpoints/epoch-*")):
            time.sleep(0.02)
        for worker in children_named("ImplicitFunc"):
            worker.kill()
            killed.append(worker.pid)

    watcher = threading.Thread(target=kill_one, daemon=True)
    watcher.start()
    folder, _ = run_sweep(job)
    watcher.join(timeout=1)
    assert killed, "nothing was killed: training was over too soon"
    ended = {record.settings["train.lr"]: record for record in read_records(build_search_space(job).records).values()}
    assert ended[0.01].status == "done"
    assert ended[1e30].status == "failed"
    assert "the loss is" in (ended[1e30].reason or "")
    assert folder.read_json("summary.json")["products"][0]["best"] == {"train.lr": 0.01}


def test_what_the_time_does_not_suffice_for_is_left(small_sweep: SweepOf, run_sweep: RunSweep, tmp_path: Path) -> None:
    job = small_sweep(tmp_path, products=["tile"], hours=1e-9)
    folder, _ = run_sweep(job)
    assert folder.read_json("summary.json")["left"] == 2
    assert "did not fit into sweep.hours" in folder.read("report.html").decode()
    unlimited = small_sweep(tmp_path, products=["tile"])
    assert build_search_space(unlimited).folder.uri == folder.uri, "more time is no other sweep"


def test_trials_of_several_workers(small_sweep: SweepOf, run_sweep: RunSweep, tmp_path: Path) -> None:
    import ray

    job = small_sweep(tmp_path, "train.workers=2", products=["tile"], parameters=_parameters(0.1))
    run_sweep(job)
    assert [record.status for record in read_records(build_search_space(job).records).values()] == ["done"]
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "a worker still holds a CPU"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("overrides", "section", "said"),
    [
        ((), {"gpus": 1}, "sweep.gpus=1: a trial takes 1 GPUs, and Ray has 0"),
        (("resources.gpus=8",), {}, "resources.gpus=8: this machine has 0"),
        (("train.workers=16", "train.batch_size=32"), {}, "train.workers=16"),
        ((), {"cpus": 64}, "sweep.cpus=64"),
    ],
)
def test_more_than_there_is(
    small_sweep: SweepOf,
    run_sweep: RunSweep,
    tmp_path: Path,
    overrides: tuple[str, ...],
    section: dict[str, object],
    said: str,
) -> None:
    with pytest.raises(JobError) as error:
        run_sweep(small_sweep(tmp_path, *overrides, **section))
    (line,) = error.value.lines
    assert said in line
    assert not list(tmp_path.glob("steps/*"))
