"""Jobs over HTTP, for real: a Ray head of our own with token authentication, and the command line beside it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from tests.conftest import REPO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Head:
    """A running Ray head and the way to speak to it."""

    address: str
    token: str

    def cli(self, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """`ancd-ray ... --address` in a process of its own."""
        command = [sys.executable, "-m", "ancd_ray", *arguments, "--address", self.address]
        env = {**_clean(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token or self.token}
        return subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=600, check=False)


def _clean() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/api/version", timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code == 401  # it is there, and needs the token
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Starts the head on ports of its own, and ends the processes that it started by their ids."""
    port, dashboard, agent, token = _free_port(), _free_port(), _free_port(), secrets.token_hex(32)
    program = Path(sys.executable).with_name("ray")
    command = [str(program), "start", "--head", "--block", "--num-cpus=2", f"--port={port}", "--disable-usage-stats"]
    command += [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
    command += [f"--dashboard-agent-listen-port={agent}"]  # another Ray of this machine may have the usual one
    env = {**_clean(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    # jobs run `python`, which has to be this one
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = psutil.Process(process.pid)
    found = Head(f"http://127.0.0.1:{dashboard}", token)
    try:
        deadline = time.monotonic() + 120
        while not _answers(found.address):
            assert process.poll() is None, "ray start ended"
            assert time.monotonic() < deadline, "no dashboard after two minutes"
            time.sleep(0.5)
        yield found
    finally:
        family = [started, *started.children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family, timeout=10)


@pytest.fixture
def job_file(small_job: Callable[..., Job], tmp_path: Path) -> Path:
    """A small job as a file: its files are read through Ray, and what comes then is little enough for the driver."""
    file = tmp_path / "job.yaml"
    cheap = ("detector={name: ground_truth}", "discovery.method=ward", "data.base=null")
    job = small_job(tmp_path / "out", *cheap, "resources.in_process_below=30")
    file.write_text(dump_resolved(job))
    return file


def test_submitted_followed_and_mirrored(head: Head, job_file: Path, tmp_path: Path) -> None:
    ended = head.cli("submit", str(job_file))
    print(ended.stdout, ended.stderr)
    assert ended.returncode == 0
    assert "tile · cluster" in ended.stdout  # the log of the other side
    run = Path(ended.stdout.strip().splitlines()[-1])
    assert run.is_relative_to(tmp_path / "out")
    assert (run / "report.html").is_file()

    submission_id = ended.stderr.split()[0]
    assert "SUCCEEDED" in head.cli("status", submission_id).stdout
    assert "tile · cluster" in head.cli("logs", submission_id).stdout
    assert submission_id in head.cli("list").stdout


def test_a_failing_job_ends_with_its_own_exit_code(head: Head, job_file: Path) -> None:
    ended = head.cli("submit", str(job_file), "data.root=/nowhere")
    assert ended.returncode == 2
    assert "/nowhere" in ended.stdout
    assert "no such folder" in ended.stdout


def test_stop(head: Head, job_file: Path, tmp_path: Path) -> None:
    long = (f"output={tmp_path}/other", "discovery.method=anomalyncd", "train.epochs=5000")
    sent = head.cli("submit", str(job_file), *long, "--no-wait")
    assert sent.returncode == 0, sent.stderr
    submission_id = sent.stdout.strip()
    deadline = time.monotonic() + 60
    while "RUNNING" not in head.cli("status", submission_id).stdout:
        assert time.monotonic() < deadline
    assert "is being stopped" in head.cli("stop", submission_id).stdout
    assert head.cli("logs", "-f", submission_id).returncode in (130, 1)
    assert "STOPPED" in head.cli("status", submission_id).stdout


@pytest.mark.parametrize("verb", [("list",), ("submit", "JOB")])
def test_a_wrong_token_is_said_in_one_line(head: Head, job_file: Path, verb: tuple[str, ...]) -> None:
    arguments = [str(job_file) if word == "JOB" else word for word in verb]
    refused = head.cli(*arguments, token="0" * 64)
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert "RAY_AUTH_TOKEN" in line


def test_an_unknown_job(head: Head) -> None:
    refused = head.cli("status", "nobody-1")
    assert refused.returncode == 1
    assert "nobody-1" in refused.stderr.strip().splitlines()[-1]
    assert len(refused.stderr.strip().splitlines()) == 1
