"""The command line: help at once, errors in lines, exit codes, and the last line of the output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved, load
from tests.conftest import REPO, Ran


def _invoke(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=text)


@pytest.mark.parametrize("verb", sorted(main.commands))
def test_help_tells_what_a_command_and_its_options_do(verb: str) -> None:
    result = _invoke(verb, "--help")
    assert result.exit_code == 0
    command = main.commands[verb]
    assert command.help
    assert command.help.split()[0] in result.output
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.opts[-1] in result.output
            explained = option.help or option.show_default or isinstance(option.type, click.Choice)
            assert explained, option.name


def test_help_shows_commands_that_work() -> None:
    result = _invoke("--help")
    assert result.exit_code == 0
    examples = re.findall(r"ancd-ray ([a-z-]+) +(\S+)", result.output)
    assert {"demo-data", "plan", "submit"} <= {verb for verb, _ in examples} <= main.commands.keys()
    drafted = {f"{Path(folder).name}.yaml" for verb, folder in examples if verb == "init"}
    files = [REPO / file for _, file in examples if file.endswith(".yaml") and file not in drafted]
    assert files
    assert all(file.is_file() for file in files), files


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, ancd_ray.cli.main; print(sys.modules.keys() & {'torch', 'ray', 'mlflow', 'numpy', 'pydantic'})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_every_error_of_a_job_file_at_once_and_exit_2(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: x\ndata: {root: /x, products: [{name: a, layout: mvtek}]}\ndetector: {nam: a}\ntrian: {}\n")
    result = _invoke("submit", str(file), "train.epochs=-1")
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert all(line.startswith("error: ") for line in lines)
    for word in ("did you mean 'mvtec'", "detector.name", "did you mean 'train'", "train.epochs"):
        assert any(word in line for line in lines), (word, lines)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("submit", "nowhere.yaml"), "nowhere.yaml: No such file", 2),
        (("report", "nowhere"), "not a run folder", 1),
        (("apply", "nowhere", "best.yaml"), "not the folder of a sweep", 1),
        (("status", "a"), "--address", 2),
        (("list", "--address", "http://127.0.0.1:9"), "does not answer", 1),
        (("logs", "a", "--address", "http://127.0.0.1:9"), "does not answer", 1),
        (("weights", "pull", "no_such_model", "--to", "/tmp"), "no_such_model", 1),
    ],
)
def test_what_is_wrong_is_one_line(arguments: tuple[str, ...], said: str, code: int) -> None:
    result = _invoke(*arguments)
    assert result.exit_code == code, result.output
    assert said in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.output


def test_relative_places_are_not_sent_to_a_cluster(small_job: Callable[..., Job], tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(small_job(tmp_path / "out")))
    result = _invoke("submit", str(file), "data.root=here", "output=there", "--address", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert ["data.root" in line or "output" in line for line in result.stderr.strip().splitlines()] == [True, True]


def test_passwords_are_not_sent_to_a_cluster(small_job: Callable[..., Job], tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(small_job(tmp_path / "out")))
    result = _invoke("submit", str(file), "tracking.uri=http://me:secret@host", "--address", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert "password" in result.stderr
    assert "secret" not in result.stderr


def test_submit_plan_report(finished: tuple[Job, Ran], tmp_path: Path) -> None:
    job, run = finished
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(job))
    submitted = _invoke("submit", str(file))
    assert submitted.exit_code == 0, submitted.output
    assert submitted.stdout.strip().splitlines()[-1] == str(run.folder)
    summary = json.loads((run.folder.path / "summary.json").read_text())
    assert all(stage["cached"] for stage in summary["stages"])
    planned = _invoke("plan", str(file), "train.lambda=0.7")
    assert "train.lambda changed" in planned.stdout
    assert f"{len(summary['stages']) - 5} of {len(summary['stages'])} steps are done" in planned.stdout
    reported = _invoke("report", str(run.folder))
    assert reported.exit_code == 0
    assert "NMI" in reported.stdout
    assert reported.stdout.strip().splitlines()[-1].endswith("report.html")


def test_a_job_on_standard_input(finished: tuple[Job, Ran]) -> None:
    job, _ = finished
    planned = _invoke("plan", "-", text=dump_resolved(job))
    assert planned.exit_code == 0, planned.output
    assert "cached" in planned.stdout


def test_demo_data_is_deterministic_and_keeps_its_hands_off_other_folders(tmp_path: Path) -> None:
    sizes = ["--images", "5", "--normals", "1", "--base", "3", "--size", "64"]
    for name in "ab":
        assert _invoke("demo-data", str(tmp_path / name), *sizes).exit_code == 0
    files = {name: sorted((tmp_path / name).rglob("*.png")) for name in "ab"}
    assert [file.read_bytes() for file in files["a"]] == [file.read_bytes() for file in files["b"]]
    assert len(files["a"]) > 9


def test_weights_list() -> None:
    listed = _invoke("weights", "list").stdout
    assert "vit_base_patch8_224.dino" in listed
    assert "lite" in listed


@pytest.mark.parametrize("name", ["quickstart", "mtd", "full", "sweep"])
def test_the_jobs_we_ship_are_jobs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANCD_DATA", "/archive")
    assert load(REPO / "jobs" / f"{name}.yaml").name == name
