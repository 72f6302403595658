"""Nights without a cluster: what the pod of the CronJob does with an API, the units of systemd, and the crontab."""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.conftest import REPO

PATH = "/apis/ray.io/v1/namespaces/plant/rayjobs"
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
KILLED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "the head was killed"}
DOCUMENT = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "x"}, "spec": {}}


@dataclass
class Api:
    """An API server with some RayJobs; each answer takes the next status of a RayJob, and the last one stays."""

    jobs: dict[str, list[Any]] = field(default_factory=dict)
    of_new: list[Any] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, Any]]:
        if handler.headers["Authorization"] != "Bearer token-of-the-pod":
            return 403, {}
        if handler.command == "POST":
            assert handler.path == PATH
            document = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
            self.created.append(document)
            self.jobs[document["metadata"]["name"]] = list(self.of_new)
            return 201, document
        name = handler.path.removeprefix(f"{PATH}/")
        if name not in self.jobs:
            return 404, {}
        statuses = self.jobs[name]
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return (status, {}) if isinstance(status, int) else (200, {"metadata": {"name": name}, "status": status})


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            code, document = api.answer(self)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield api
        server.shutdown()
        thread.join()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_rayjob", REPO / "cluster/run_rayjob.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "run_rayjob", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "POLL_S", 0.01)
    return module


@pytest.fixture
def run(api: Api, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the script as the pod of a Job does; returns its exit code."""
    (tmp_path / "token").write_text("token-of-the-pod\n")
    (tmp_path / "rayjob.yaml").write_text(yaml.safe_dump(DOCUMENT))
    cluster = script.Cluster(api.url, "plant", tmp_path / "token", None)
    monkeypatch.setattr(script.Cluster, "find", lambda: cluster)
    monkeypatch.setattr(sys, "argv", ["run_rayjob.py", str(tmp_path / "rayjob.yaml")])
    monkeypatch.setenv("JOB_NAME", "night-29931240")
    monkeypatch.setenv("JOB_UID", "1-2-3")
    return script.main


def test_a_night_is_created_and_waited_for(api: Api, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    api.of_new = [{}, {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, 503, DONE]
    assert run() == 0
    (created,) = api.created
    assert created["metadata"] == {
        "name": "night-29931240-1",
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "night-29931240", "uid": "1-2-3"}],
    }
    assert capsys.readouterr().out.splitlines() == ["night-29931240-1: created", "night-29931240-1: done"]


@pytest.mark.parametrize("code", [1, 2, 3])
def test_the_exit_code_is_that_of_the_driver(api: Api, run: Any, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    message = f"Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):"
    api.of_new = [{"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": f"{message}\nerror: why"}]
    assert run() == code
    assert "error: why" in capsys.readouterr().err


def test_a_failure_without_an_exit_code(api: Api, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    api.of_new = [{"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}]
    assert run() == 1
    assert "DeadlineExceeded" in capsys.readouterr().err


def test_a_second_try_makes_another_ray_job(api: Api, run: Any) -> None:
    api.jobs["night-29931240-1"] = [KILLED]
    api.of_new = [DONE]
    assert run() == 0
    assert [document["metadata"]["name"] for document in api.created] == ["night-29931240-2"]


def test_a_pod_that_was_moved_waits_for_the_same_ray_job(api: Api, run: Any) -> None:
    api.jobs["night-29931240-1"] = [{"jobDeploymentStatus": "Running"}, {"jobDeploymentStatus": "Running"}, DONE]
    assert run() == 0
    assert not api.created


def test_without_rights_it_ends_at_once(api: Api, run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("another")
    assert run() == 1
    assert "403" in capsys.readouterr().err


def test_a_ray_job_that_somebody_deletes(api: Api, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    api.of_new = [{"jobDeploymentStatus": "Running"}, 404]
    assert run() == 1
    assert "404" in capsys.readouterr().err


def test_a_silent_server_is_given_up(
    api: Api, run: Any, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "SILENT_S", 0.1)
    api.of_new = [{"jobDeploymentStatus": "Running"}, 503]
    assert run() == 1
    assert "503" in capsys.readouterr().err


# --- systemd and cron -------------------------------------------------------------------------------------------

UNITS = REPO / "cluster/systemd"


def _read(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text("utf-8"))
    return parser


def test_units() -> None:
    service, timer = _read("ancd-ray-night.service"), _read("ancd-ray-night.timer")
    assert service["Service"]["Type"] == "oneshot"
    program, *arguments = service["Service"]["ExecStart"].split()
    assert Path(program).name == "ancd-ray"
    assert Path(program).is_absolute()
    assert arguments == ["submit", "jobs/nightly.yaml"]
    assert service["Service"]["RestartPreventExitStatus"] == "2 3"
    assert timer["Timer"]["Persistent"] == "true"
    assert timer["Install"]["WantedBy"] == "timers.target"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for name in ("ancd-ray-night.service", "ancd-ray-night.timer"):
        text = (UNITS / name).read_text("utf-8")
        (tmp_path / name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    units = [str(path) for path in sorted(tmp_path.iterdir())]
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    if "Failed to" in checked.stderr and "initialize" in checked.stderr:
        pytest.skip(f"systemd cannot check units here: {checked.stderr.strip()}")
    own = [line for line in checked.stderr.splitlines() if "ancd-ray-night" in line]
    assert not own
    assert checked.returncode == 0, checked.stderr


def test_the_crontab_mails_only_what_failed(tmp_path: Path) -> None:
    """The command of the crontab, with a program that ends with an exit code."""
    text = (REPO / "docs/schedules.md").read_text("utf-8")
    (line,) = re.findall(r"(?m)^0 22 \* \* \* +(.*)$", text)
    assert "%" not in line, "cron would take it for the end of the command"
    (tmp_path / "venv/bin").mkdir(parents=True)
    program = tmp_path / "venv/bin/ancd-ray"
    for code in (0, 1, 3):
        program.write_text(
            f'#!/bin/sh\necho "error: why" >&2\ntest "$*" = "submit jobs/nightly.yaml" || exit 9\nexit {code}\n'
        )
        program.chmod(0o755)
        command = line.replace("/srv/ancd", str(tmp_path))
        printed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
        assert printed.stdout == (f"exit code {code}\nerror: why\n" if code else "")
        assert printed.stderr == ""
