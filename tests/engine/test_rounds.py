"""Steps of several products side by side: what runs together, what an error leaves, and that results are the same."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from ancd_ray.config.job import Job
from ancd_ray.data.store import Folder
from ancd_ray.engine import runtime as runtime_module
from ancd_ray.engine.artifacts import Figures, Table
from ancd_ray.engine.calls import Call, Ended, Resources, run_here, run_on_ray
from ancd_ray.engine.context import Context, StageError, divide_listing
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.outputs import Result, Shard, ShardResult
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.shards import ShardCall, Work
from ancd_ray.engine.stage import Flow, Stage, Step, unhashed
from ancd_ray.engine.steps import StepCall
from ancd_ray.jobs.plan import make
from tests.conftest import Ran


def _row(i: int) -> dict[str, Any]:
    return {"image_id": f"{i:03d}", "product": "p", "uri": f"{i}.png", "role": "query"}


@dataclass(frozen=True)
class _List(Stage):
    """Lists n images; `deadly` is a file that exists until a worker has been killed."""

    name: ClassVar[str] = "list"
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = "images"

    @dataclass(frozen=True)
    class In:
        pass

    class Out:
        images: Table

    n: int
    deadly: str = unhashed("")

    @property
    def n_images(self) -> int:
        return self.n

    def run(self, context: Context, inputs: Any) -> Work:
        rows = [{**_row(i), "problem": None} for i in range(self.n)]
        done = yield from context.map(_copy(self.deadly), divide_listing(context.folder, rows)[1])
        return Result.of_shards(done)


def _copy(deadly: str) -> Callable[[Shard], ShardResult]:
    def work(shard: Shard) -> ShardResult:
        if deadly and Path(deadly).exists():
            Path(deadly).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        about = {"width": 1, "height": 1, "orientation": 1, "digest": ""}
        return ShardResult({"images": [{**_row(int(row["image_id"])), **about} for row in shard.rows_of("listing")]})

    return work


@dataclass(frozen=True)
class _Count(Stage):
    """Counts the images; fails if `limit` is exceeded."""

    name: ClassVar[str] = "count"
    version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class In:
        images: Table

    class Out:
        counted: Figures

    limit: int = 10**6

    def run(self, context: Context, inputs: Any) -> Result:
        if inputs.images.num_rows > self.limit:
            raise StageError(f"product {context.product} has too many images")
        return Result({}, {"n": inputs.images.num_rows})


@dataclass
class _Recorder(Runtime):
    """Runs calls in this process, and records which of them were given together."""

    is_there: bool = True  # a Ray that runs
    executions: list[list[str]] = field(default_factory=list)

    @property
    def is_started(self) -> bool:
        return self.is_there

    def devices(self) -> tuple[int, int]:
        return 2, 0

    def run(self, calls: Sequence[Call]) -> Iterator[Ended]:
        self.executions.append([_name(call) for call in calls])
        return run_here(calls)


def _name(call: Call) -> str:
    if isinstance(call, StepCall):
        return f"{call.product}.{call.stage.name}"
    assert isinstance(call, ShardCall)
    return f"{call.attempt.folder.uri.rpartition('/')[2].partition('-')[0]}.{call.attempt.name}"


def _steps(*sizes: int, limit: int = 10**6, deadly: str = "") -> list[Step]:
    steps = []
    for number, n in enumerate(sizes):
        flow = Flow(f"p{number}")
        flow.add(_List(n, deadly if number == 0 else ""))
        flow.add(_Count(limit))
        steps += flow.steps
    return steps


def _run(steps: Sequence[Step], root: Path, runtime: Runtime) -> str:
    said = io.StringIO()
    display = Display("test", Console(file=said, width=200, height=100, force_terminal=True))
    with display.running():
        run_steps(steps, Folder(str(root)), runtime, display, 0.5)
    return said.getvalue()


def _read_results(root: Path) -> dict[str, Any]:
    """The content of all manifests, without times, and the names of all files."""
    found: dict[str, Any] = {"files": Folder(str(root / "steps")).files()}
    for file in root.glob("steps/*/*/manifest.json"):
        manifest = json.loads(file.read_text())
        found[str(file.relative_to(root))] = {k: v for k, v in manifest.items() if k not in ("seconds", "created_at")}
    return found


def test_small_steps_of_products_are_one_execution_a_stage(tmp_path: Path) -> None:
    runtime = _Recorder(in_process_below=64)
    _run(_steps(40, 40, 40), tmp_path, runtime)
    assert runtime.executions == [["p0.list", "p1.list", "p2.list"], ["p0.count", "p1.count", "p2.count"]]


def test_few_images_in_all_are_shards_in_this_process(tmp_path: Path) -> None:
    runtime = _Recorder(in_process_below=64, is_there=False)
    _run(_steps(20, 20), tmp_path, runtime)
    (together,) = runtime.executions
    assert together == [f"p{i}.shard {index} of list" for i in range(2) for index in range(2)]


def test_light_steps_do_not_start_ray(tmp_path: Path) -> None:
    runtime = _Recorder(in_process_below=64, is_there=False)
    _run(_steps(40, 40), tmp_path, runtime)
    assert runtime.executions == [["p0.list", "p1.list"]], "count ran here, by itself"


def test_a_large_product_is_divided_beside_small_ones(tmp_path: Path) -> None:
    runtime = _Recorder(in_process_below=64)
    _run(_steps(40, 400), tmp_path, runtime)
    assert runtime.executions[0] == [*(f"p1.shard {index} of list" for index in range(25)), "p0.list"]


def test_results_do_not_depend_on_what_runs_beside(tmp_path: Path) -> None:
    sizes = (40, 40, 200)
    for number in range(3):
        _run(_steps(*sizes)[2 * number : 2 * number + 2], tmp_path / "alone", Runtime(in_process_below=10**6))
    _run(_steps(*sizes), tmp_path / "beside", _Recorder(in_process_below=64))
    alone, beside = _read_results(tmp_path / "alone"), _read_results(tmp_path / "beside")
    assert beside == alone
    assert len(beside) == 7


@dataclass(frozen=True)
class _Train(_Count):
    name: ClassVar[str] = "train"
    resources: ClassVar[Resources] = "model"
    is_training: ClassVar[bool] = True


def test_trainings_run_side_by_side_if_there_is_one_for_every_core(tmp_path: Path) -> None:
    def make_flows(n: int) -> list[Step]:
        flows = [Flow(f"p{i}") for i in range(n)]
        for flow in flows:
            flow.add(_List(100))
            flow.add(_Train())
        return [step for flow in flows for step in flow.steps]

    one, two = (_Recorder(in_process_below=64) for _ in range(2))  # with two cores
    _run(make_flows(1), tmp_path / "one", one)
    assert [len(calls) for calls in one.executions] == [7], "shards of the listing; the training had all cores here"
    _run(make_flows(2), tmp_path / "two", two)
    assert two.executions[-1] == ["p0.train", "p1.train"]


def test_an_error_ends_the_job_and_the_results_of_other_products_stay(tmp_path: Path) -> None:
    steps = _steps(40, 70, 40, limit=60)
    with pytest.raises(StageError, match=r"^product p1 has too many images$"):
        _run(steps, tmp_path, _Recorder(in_process_below=64))
    kept = sorted(file.parent.name.partition("-")[0] for file in tmp_path.glob("steps/count/*/manifest.json"))
    assert kept == ["p0"], "in the order of the calls here; on Ray, what was under way"
    assert len(list(tmp_path.glob("steps/list/*/manifest.json"))) == 3
    runtime = _Recorder(in_process_below=64)
    with pytest.raises(StageError, match=r"^product p1 has too many images$"):
        _run(steps, tmp_path, runtime)
    assert runtime.executions == [["p1.count", "p2.count"]]


def test_an_error_forgets_attempts_at_shards_that_wait(tmp_path: Path) -> None:
    steps = _steps(400, 70, limit=60)
    folder = steps[0].folder(Folder(str(tmp_path)))
    folder.write_json("attempts/00003.json", 1)

    class Broken(_Recorder):
        def run(self, calls: Sequence[Call]) -> Iterator[Ended]:
            yield Ended(calls[-1], error=StageError("broken"))

    with pytest.raises(StageError, match="broken"):
        _run(steps, tmp_path, Broken(in_process_below=64))
    assert not folder.exists("attempts/00003.json")


def test_the_table_of_many_steps_fits_the_terminal(tmp_path: Path) -> None:
    said = _run(_steps(*[40] * 30), tmp_path, _Recorder(in_process_below=64))
    final = said[said.rindex("product") :]
    assert "60 steps: 60 done" in final
    assert final.count("· ") + final.count(" done ") < 30


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_the_tests")
def test_a_worker_that_was_killed_leaves_its_step_to_the_driver(tmp_path: Path) -> None:
    deadly = tmp_path / "deadly"
    deadly.touch()
    steps = _steps(40, 40, deadly=str(deadly))
    _run(steps, tmp_path / "out", Runtime(cpus=2, in_process_below=64))
    assert not deadly.exists()
    _run(_steps(40, 40), tmp_path / "calm", Runtime(in_process_below=10**6))
    assert _read_results(tmp_path / "out") == _read_results(tmp_path / "calm")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_the_tests")
def test_a_job_of_three_products_is_one_execution_a_round_with_the_same_results(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executions: list[list[str]] = []

    def record(calls: Sequence[Call], cpus: int, gpus: int) -> Iterator[Ended]:
        executions.append([_name(call) for call in calls])
        return run_on_ray(calls, cpus, gpus)

    monkeypatch.setattr(runtime_module, "run_on_ray", record)
    products = [{"name": name, "layout": "mvtec", "path": "tile"} for name in ("a", "b", "c")]
    overrides = (f"data.products={json.dumps(products)}", "data.base=null", "detector={name: ground_truth}")
    overrides += ("discovery.method=linked", "classes.novel=4")
    run_job(small_job(tmp_path / "alone", *overrides))
    assert not executions
    run_job(small_job(tmp_path / "beside", *overrides, "resources.in_process_below=40"))
    stages = [step.name for step in make(small_job(tmp_path / "beside", *overrides)).products[0].steps]
    assert sorted(executions) == sorted([f"{product}.{stage}" for product in "abc"] for stage in stages)
    assert _read_results(tmp_path / "beside") == _read_results(tmp_path / "alone")
