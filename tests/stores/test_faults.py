"""Stores that fail for a moment, for long, or for good: a job waits, or ends with one line and goes on later."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ancd_ray.cli.main import main
from ancd_ray.data import location
from ancd_ray.data.images import BadImage, read_bytes
from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from tests.stores.conftest import WriteJob
from tests.stores.server import Store, relay

CHEAP = ("detector={name: ground_truth}", "discovery={method: ward}", "data.base=null")
BOUND_S = 150  # of the time that a job takes to give up


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are given up after two seconds and not half a minute."""
    monkeypatch.setattr(location, "ATTEMPTS", 6)


def _places(store: Store, port: int, name: str) -> tuple[str, str]:
    return store.uri("archive/demo", port), store.uri(f"results/{name}", port)


def _check_complete(store: Store, run_folder: str) -> None:
    """Check that every image has a prediction or a line in quarantine: here, that none is in quarantine."""
    run = Folder(store.uri(run_folder.removeprefix("s3://")))
    assert run.read_json("summary.json")["images"] == 25
    folder = run / "image_predictions"
    assert sum(folder.read_table(name).num_rows for name in folder.names()) == 25
    assert (run / "quarantine").read_table("part-00000.parquet").num_rows == 0


def _check_line(ended: Result, *said: str) -> None:
    """Check that a failure is told in one line, the last one."""
    assert ended.exit_code == 1, ended.output
    assert "Traceback" not in ended.output
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    assert ended.stderr.splitlines()[-1] == errors[0]
    for text in (*said, "storage does not answer", "the same command continues when it does"):
        assert text in errors[0]


@pytest.mark.slow
def test_a_job_repeats_requests_that_fail(store: Store, write_job: WriteJob, tmp_path: Path) -> None:
    with relay(store, tmp_path / "log", "503:17", "500:53", "late:300") as (port, _):
        ended = CliRunner().invoke(main, ["submit", write_job(*_places(store, port, "shaky"), *CHEAP)])
    assert ended.exit_code == 0, ended.stderr
    _check_complete(store, ended.stdout.strip())


def test_repeats_do_not_run_out(store: Store, tmp_path: Path) -> None:
    """As those of the AWS library's standard strategy do after a hundred, for the life of the process."""
    with relay(store, tmp_path / "log", "503:2") as (port, _):
        folder = Folder(store.uri("results", port))
        assert not any(folder.exists(f"none-{i}") for i in range(60))  # two requests each, every second one fails


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_away_midway(store: Store, write_job: WriteJob, tmp_path: Path) -> None:
    """The store dies while images are read; the same command goes on when it is back."""
    with relay(store, tmp_path / "log") as (port, process):

        def kill() -> None:
            while not any("/detect/" in path for path in store.list("results/outage/steps")):
                time.sleep(0.05)
            os.kill(process, signal.SIGKILL)

        file = write_job(*_places(store, port, "outage"), *CHEAP)
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        ended = CliRunner().invoke(main, ["submit", file])
        killer.join(timeout=10)
    _check_line(ended)
    assert ended.stdout == ""
    with relay(store, tmp_path / "log", port=port):
        again = CliRunner().invoke(main, ["submit", file])
    assert again.exit_code == 0, again.stderr
    assert "tile · catalog  cached" in again.stderr
    _check_complete(store, again.stdout.strip())


def test_a_store_that_always_fails(store: Store, write_job: WriteJob, tmp_path: Path) -> None:
    """With the patience that jobs have."""
    with relay(store, tmp_path / "log", "500:1") as (port, _):
        start = time.monotonic()
        ended: Result = CliRunner().invoke(main, ["submit", write_job(*_places(store, port, "never"), *CHEAP)])
        assert time.monotonic() - start < BOUND_S
    assert ended.exit_code in (1, 2), ended.output
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "HTTP status 500" in line


@pytest.mark.usefixtures("impatient")
def test_an_image_is_refused_only_for_what_it_is(store: Store, tmp_path: Path) -> None:
    with relay(store, tmp_path / "log", "500:1") as (port, _), pytest.raises(StoreError, match="does not answer"):
        read_bytes(f"{Folder(store.uri('archive/demo', port))}/tile/ground_truth")
    Folder(store.uri("archive/demo"))
    with pytest.raises(BadImage, match="no such file"):
        read_bytes("s3://archive/demo/none.png")
