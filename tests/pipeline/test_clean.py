"""`ancd-ray clean`: old results go, and nothing that is left has lost what it stands on."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import DRAFTS, Folder
from ancd_ray.jobs import clean as module
from tests.conftest import Ran

DAY = 86_400
NO_STEP = f"steps/train/tile-{255:016x}"  # was deleted by somebody


class Output:
    """A made-up output folder: steps that are made from each other, runs, sweeps, and their ages in days."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "steps" / "catalog").mkdir(parents=True)

    def step(self, number: int, *sources: int, age: float = 40, finished: bool = True) -> str:
        place = f"steps/train/tile-{number:016x}"
        files = {"maps/part-00000.parquet": "x" * 1000}
        if finished:
            inputs = {f"i{source}": {"step": "train", "fingerprint": f"{source:016x}"} for source in sources}
            manifest = {"fingerprint": f"{number:016x}", "tables": {}, "values": {}, "inputs": inputs}
            files["manifest.json"] = json.dumps(manifest)
        self._write(place, files, age)
        return place

    def run(self, number: int, steps: Sequence[str], age: float) -> str:
        place = f"runs/job-{number:012x}"
        record = {"steps": list(steps), "products": {"tile": {}}}
        self._write(place, {"run.json": json.dumps(record), "report.html": "x" * 50}, age)
        return place

    def sweep(self, number: int, trials: Sequence[int], age: float, ended: bool = True) -> str:
        place = f"runs/job-sweep-{number:012x}"
        files = {f"trials/tile-{trial:016x}.json": "{}" for trial in trials}
        self._write(place, {**files, **({"sweep.parquet": "x"} if ended else {"job.yaml": ""})}, age)
        return place

    def _write(self, place: str, files: dict[str, str], age: float) -> None:
        for name, text in files.items():
            self.file(f"{place}/{name}", text, age)

    def file(self, name: str, text: str, age: float) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        then = time.time() - age * DAY
        os.utime(path, (then, then))
        return path

    @property
    def places(self) -> set[str]:
        folders = [*self.root.glob("steps/train/*"), *self.root.glob("runs/*")]
        return {str(folder.relative_to(self.root)) for folder in folders}

    @property
    def bytes(self) -> int:
        kept = ("steps", "runs", DRAFTS, "logs")
        return sum(path.stat().st_size for name in kept for path in (self.root / name).rglob("*") if path.is_file())

    def clean(self, *options: str) -> Result:
        return _run("clean", str(self.root), *options)


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _freed(result: Result) -> int:
    assert result.exit_code == 0, result.output
    return int(result.stdout.splitlines()[-1])


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path / "out")


def test_shared_steps_stay_as_long_as_one_run_does(output: Output) -> None:
    shared, first, second = output.step(1), output.step(2, 1), output.step(3, 1)
    old, new = output.run(1, [shared, first], 20), output.run(2, [shared, second], 10)
    before = output.bytes
    result = output.clean("--keep", "1")
    assert output.places == {shared, second, new}
    assert _freed(result) == before - output.bytes > 1000
    assert [line.split()[-1] for line in result.stdout.splitlines()[:-1]] == [first, old]
    assert output.clean("--keep", "1").stdout == "0\n", "a second one has nothing to do"
    output.clean("--keep", "0")
    assert not output.places


def test_a_dry_run_says_the_same_and_deletes_nothing(output: Output) -> None:
    output.run(1, [output.step(1)], 20)
    output.run(2, [output.step(2)], 10)
    draft = output.file(f"{DRAFTS}/.draft", "x" * 77, 1)
    before = {path: path.stat().st_mtime_ns for path in output.root.rglob("*")}
    said = output.clean("--keep", "1", "--dry-run")
    assert {path: path.stat().st_mtime_ns for path in output.root.rglob("*")} == before
    done = output.clean("--keep", "1")
    assert said.stdout == done.stdout
    assert f"{DRAFTS}/.draft" in said.stdout
    assert not draft.exists()
    assert _freed(done) > 1000 + 77


def test_the_newest_three_runs_stay_and_those_that_are_young(output: Output) -> None:
    runs = {age: output.run(age, [output.step(age)], age) for age in (2, 9, 20, 29, 31, 60)}
    output.clean("--older-than", "30d")
    assert output.places & set(runs.values()) == {runs[age] for age in (2, 9, 20, 29)}
    output.clean("--keep", "0", "--older-than", "2w")
    assert output.places & set(runs.values()) == {runs[2], runs[9]}
    output.clean()
    assert len(output.places) == 4
    output.clean("--keep", "1", "--older-than", "24h")
    assert output.places == {runs[2], "steps/train/tile-0000000000000002"}


def test_a_sweep_keeps_what_its_trials_were_made_from(output: Output) -> None:
    bank, trained, classified = output.step(1), output.step(2, 1), output.step(3, 2)
    sweep = output.sweep(1, [3], 20)
    unused = output.step(4, 1)
    output.clean("--keep", "1")
    assert output.places == {bank, trained, classified, sweep}
    assert unused not in output.places
    newer = output.run(1, [NO_STEP], 1)
    output.clean("--keep", "1")
    assert output.places == {newer}


def test_a_sweep_that_was_killed_keeps_its_trials(output: Output) -> None:
    kept = {output.step(1), output.step(2, 1), output.sweep(1, [2], 20, ended=False)}
    assert _freed(output.clean()) == 0
    assert output.places == kept


def test_work_in_progress_stays_for_a_day_with_what_it_was_made_from(output: Output) -> None:
    young = {output.step(1), output.step(2, 1, age=0.5), output.step(3, finished=False, age=0.5)}
    output.step(4, age=2)
    output.step(5, finished=False, age=2)
    output.file("runs/job-0000000000aa/report.html", "x", 0.5)
    output.file("runs/job-0000000000bb/report.html", "x", 2)
    output.clean()
    assert output.places == {*young, "runs/job-0000000000aa"}


def test_young_steps_of_a_run_that_goes_go_with_it(output: Output) -> None:
    output.run(1, [output.step(1, age=0.1)], 0.2)
    kept = {output.run(2, [NO_STEP], 0.1)}
    output.clean("--keep", "1")
    assert output.places == kept


def test_logs_go_by_their_age(output: Output) -> None:
    old, new = output.file("logs/error-1.log", "x", 40), output.file("logs/error-2.log", "x", 20)
    output.clean()
    assert old.exists()
    assert _freed(output.clean("--older-than", "30d")) == 1
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("deleted", range(5))
def test_killed_midway_it_can_be_run_again(output: Output, monkeypatch: pytest.MonkeyPatch, deleted: int) -> None:
    for number, sources in ((1, []), (2, [1]), (3, [2])):  # all of them younger than a day
        output.step(number, *sources, age=0.5 - 0.1 * number)
    output.sweep(1, [3], 0.1)
    last = output.run(2, [output.step(9, age=0.01)], 0.01)
    delete, left = module._delete, deleted

    def delete_some(root: Folder, entry: module.Entry) -> None:
        nonlocal left
        if not left:
            (root / entry.place).discard("manifest.json")
            raise KeyboardInterrupt
        left -= 1
        delete(root, entry)

    monkeypatch.setattr(module, "_delete", delete_some)
    rules = module.Rules(keep=1)
    if deleted < 4:
        with pytest.raises(KeyboardInterrupt):
            module.clean(Folder(str(output.root)), rules, False, lambda _: None)
    monkeypatch.undo()
    output.clean("--keep", "1")
    assert output.places == {last, "steps/train/tile-0000000000000009"}


def test_folders_of_others_stay(output: Output) -> None:
    mine = [
        output.file(f"{place}/x", "x", 400) for place in ("runs/Nov28_events", "steps/train/notes", "mlruns/a", "y")
    ]
    assert _freed(output.clean("--keep", "0")) == 0
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize("kind", ["run", "empty", "missing"])
def test_what_is_no_output_folder_is_refused_in_one_line(output: Output, tmp_path: Path, kind: str) -> None:
    run = output.run(1, [output.step(1)], 1)
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    folder = {"run": output.root / run, "empty": tmp_path / "empty", "missing": tmp_path / "missing"}[kind]
    result = _run("clean", str(folder))
    assert result.exit_code != 0
    assert re.fullmatch(rf"error: {folder}: not an output folder .*\n", result.stderr)
    assert not (tmp_path / "missing").exists()


def test_a_record_that_cannot_be_read_is_named_and_nothing_goes(output: Output) -> None:
    output.step(1)
    output.file(f"{output.run(1, [NO_STEP], 1)}/run.json", "{", 1)
    before = output.places
    result = output.clean("--keep", "0")
    assert result.exit_code != 0
    assert re.fullmatch(r"error: .*/run\.json: cannot be read, .*\n", result.stderr)
    assert output.places == before


def test_a_job_that_writes_there_is_named(output: Output) -> None:
    with lock_folder(Folder(str(output.root))):
        result = output.clean()
    assert result.exit_code != 0
    assert re.fullmatch(r"error: .*another job writes here \(process \d+\).*\n", result.stderr)


def test_an_age_that_is_none_is_refused(output: Output) -> None:
    assert "12h, 30d, 8w" in output.clean("--older-than", "30").stderr


def test_the_commands_on_a_run_that_was_kept_and_on_one_that_was_not(
    finished: tuple[Job, Ran],
    small_job: Callable[..., Job],
    run_job: Callable[[Job], Ran],
    demo_root: Path,
    tmp_path: Path,
) -> None:
    root = tmp_path / "out"
    shutil.copytree(finished[0].output_root, root)
    (gone,) = (root / "runs").iterdir()
    kept = run_job(small_job(root, "merge.tau_alpha=10")).folder.path
    for path in gone.rglob("*"):
        os.utime(path, (1e9, 1e9))
    before = {path.parent.name for path in root.glob("steps/*/*/manifest.json")}
    assert _freed(_run("clean", str(root), "--keep", "1")) > 0
    after = {path.parent.name for path in root.glob("steps/*/*/manifest.json")}
    assert len(before - after) == 2, "merge and evaluate of the other run"
    assert after <= before
    assert _run("report", str(kept)).exit_code == 0
    image = next((demo_root / "tile" / "test").glob("*/*.png"))
    assert json.loads(_run("predict", str(kept), str(image)).stdout)["class"]
    tracked = _run("track", str(kept), "--uri", f"sqlite:///{tmp_path}/other.db")
    assert "is now tracked" in tracked.stdout, tracked.output
    again = run_job(small_job(root, "merge.tau_alpha=10"))
    assert again.computed == set()
    for command in (["report", str(gone)], ["predict", str(gone), str(image)], ["track", str(gone)]):
        result = _run(*command)
        assert result.exit_code != 0
        assert len(result.stderr.splitlines()) == 1
    assert run_job(finished[0].model_copy(update={"output": str(root)})).computed == {"merge", "evaluate"}
