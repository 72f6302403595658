"""What a plan costs, by the rates that runs have measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.engine.executor import StepRun
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.status import PlanStatus, plan_status
from ancd_ray.jobs import rates
from ancd_ray.jobs.plan import JobPlan, make
from ancd_ray.jobs.rates import (
    Cost,
    estimate,
    format_bytes,
    format_row,
    format_seconds,
    predict_cost,
    record_rates,
    summarize_costs,
)
from tests.conftest import Ran

MakeJob = Callable[..., Job]
TILES = 25 + 12  # images of the product, and 9 of the base set


def _record(plan: JobPlan, seconds: float, size: int, **state: bool) -> None:
    """Record a run whose steps took as many seconds and left as many bytes each."""
    done = {}
    for step in plan.steps:
        folder = step.folder(plan.root)
        folder.write("maps/part-00000.parquet", bytes(size))
        manifest = {"fingerprint": step.fingerprint, "tables": {}, "values": {}, "seconds": seconds}
        done[step.fingerprint] = StepRun(Output(folder, manifest), **{"cached": False, **state})
    record_rates(plan, done)


def _estimate(plan: JobPlan) -> dict[tuple[str, str], Cost]:
    statuses = [PlanStatus(step, "run", "") for step in plan.steps]
    keys = [(step.product, step.name) for step in plan.steps]
    return dict(zip(keys, estimate(plan, statuses), strict=True))


def test_without_a_run_there_are_none(small_job: MakeJob, tmp_path: Path) -> None:
    plan = make(small_job(tmp_path / "out"))
    statuses = plan_status(plan.steps, plan.root)
    costs = estimate(plan, statuses)
    assert {cost.seconds for cost in costs} == {None}
    assert {cost.images for cost in costs} == {TILES, 9}
    assert summarize_costs(costs, statuses).startswith("no rates yet")


def test_costs_are_by_image_and_pass_and_by_the_median_of_the_last_runs(small_job: MakeJob, tmp_path: Path) -> None:
    plan = make(small_job(tmp_path / "out"))
    for seconds in (9000, 1, 4, 2, 3, 900):
        _record(plan, seconds, size=int(1000 * seconds))
    cost = _estimate(plan)
    assert cost["tile", "train"].seconds == pytest.approx(3)
    assert cost["tile", "train"].bytes == pytest.approx(3000)
    assert cost["tile", "detect"].seconds == pytest.approx(3)
    each = 2 * 3 / (TILES + 9)  # the base set and the product have one kind of `catalog`
    assert cost["tile", "catalog"].seconds == pytest.approx(each * TILES)
    assert cost["base", "catalog"].seconds == pytest.approx(each * 9)
    longer = _estimate(make(small_job(tmp_path / "out", "train.epochs=6")))
    assert longer["tile", "train"].seconds == pytest.approx(2 * 3)
    fewer = _estimate(make(small_job(tmp_path / "out", "data.products.0.exclude=[crack]")))
    assert fewer["tile", "train"].images < TILES
    assert fewer["tile", "train"].seconds == pytest.approx(3 * fewer["tile", "train"].images / TILES)


def test_small_runs_say_what_a_start_costs_and_large_ones_the_rate() -> None:
    nights = [(100.0, 12.0, 500.0)] * 4
    seconds, size = predict_cost([(100_000.0, 1000.0, 1e6), *nights], 200)
    assert seconds == pytest.approx(12 - 1 + 2)
    assert size == pytest.approx(2000)
    assert predict_cost(nights, 200) == pytest.approx((24, 1000))
    assert predict_cost(nights, 0) == (0, 0)


def test_the_largest_run_is_kept(small_job: MakeJob, tmp_path: Path) -> None:
    few = make(small_job(tmp_path / "out", "data.products.0.exclude=[crack, hole, stain]"))
    _record(make(small_job(tmp_path / "out")), 3, 10)
    for _ in range(8):
        _record(few, 3, 10)
    runs = few.root.read_json(rates.RATES)
    assert all(len(each) <= 5 for each in runs.values())
    (detect,) = [each for kind, each in runs.items() if kind.startswith("detect patchcore")]
    assert detect[0][0] == TILES


@pytest.mark.parametrize(
    "other", ["resources.cpus=7", "detector={name: ground_truth}", "backbone.name=vit_tiny_patch16_224"]
)
def test_rates_of_another_kind_are_not_taken(small_job: MakeJob, tmp_path: Path, other: str) -> None:
    _record(make(small_job(tmp_path / "out", "resources.cpus=2", "data.base=null")), 3, 10)
    plan = make(small_job(tmp_path / "out", "resources.cpus=2", "data.base=null", other))
    assert _estimate(plan)["tile", "detect"].seconds is None
    statuses = [PlanStatus(step, "run", "") for step in plan.steps]
    said = summarize_costs(estimate(plan, statuses), statuses)
    assert said.startswith("no rates yet") if "cpus" in other else re.match(r"about .*, and .*detect", said)


@pytest.mark.parametrize("state", ["cached", "resumed"])
def test_what_a_run_did_not_do_alone_is_no_rate(small_job: MakeJob, tmp_path: Path, state: str) -> None:
    plan = make(small_job(tmp_path / "out"))
    _record(plan, 3, 10, **{state: True})
    assert not plan.root.exists(rates.RATES)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b'{"a": [[1]]}', b'{"a": [[1, null]]}'])
def test_a_file_that_cannot_be_read_is_made_anew(small_job: MakeJob, tmp_path: Path, content: bytes) -> None:
    plan = make(small_job(tmp_path / "out"))
    plan.root.write(rates.RATES, content)
    assert {cost.seconds for cost in _estimate(plan).values()} == {None}
    _record(plan, 3, 10)
    assert _estimate(plan)["tile", "train"].seconds == pytest.approx(3)


def test_a_step_that_is_begun_costs_what_is_left(small_job: MakeJob, tmp_path: Path) -> None:
    plan = make(small_job(tmp_path / "out"))
    _record(plan, 37, 10)
    states = {"detect": ("continue", 2), "train": ("cached", 0)}
    statuses = [PlanStatus(step, *_split(states.get(step.name, ("run", 0)))) for step in plan.steps]
    cost = {(s.step.product, s.step.name): c for s, c in zip(statuses, estimate(plan, statuses), strict=True)}
    assert cost["tile", "detect"].images == TILES - 2 * 16
    assert cost["tile", "detect"].seconds == pytest.approx(TILES - 2 * 16)
    assert cost["tile", "train"] == Cost(0, 0.0, 0.0)
    assert format_row(cost["tile", "train"]) == ("", "", "")


def _split(state: tuple[str, int]) -> tuple[str, str, int]:
    return state[0], "", state[1]


def test_figures_have_two_digits_and_a_unit() -> None:
    assert [format_seconds(s) for s in (0.01, 42.4, 850, 12_000)] == ["1 s", "42 s", "14 min", "3.3 h"]
    assert [format_bytes(b) for b in (900, 5.2e6, 2.14e9, 3e12)] == ["1 kB", "5 MB", "2.1 GB", "3.0 TB"]


def test_the_same_job_with_another_seed_has_a_cost(
    finished: tuple[Job, Ran], small_job: MakeJob, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(finished[0]))

    def plan(*overrides: str) -> str:
        said = CliRunner().invoke(main, ["plan", str(file), *overrides])
        assert said.exit_code == 0, said.output
        return said.stdout.splitlines()[-1]

    assert plan() == "nothing to do"
    changed = make(small_job(Path(finished[0].output_root), "train.seed=1"))
    statuses = plan_status(changed.steps, changed.root)
    costs = estimate(changed, statuses)
    expected = sum(cost.seconds or 0 for cost in costs)
    said = plan("train.seed=1")
    assert said == summarize_costs(costs, statuses)
    assert said.startswith(f"about {format_seconds(expected)}, ")
    run = [cost.seconds for cost, status in zip(costs, statuses, strict=True) if status.state != "cached"]
    assert all(seconds is not None and seconds > 0 for seconds in run)
    assert sum(cost.bytes or 0 for cost in costs) > 0
