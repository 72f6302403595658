"""Files whose reading does not end: the job ends with one line, and the same command goes on when they are back.

A lease, by which Linux tells file servers that another process opens a file, makes that process wait.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data import deadline
from ancd_ray.data.images import BadImage, read_bytes
from ancd_ray.data.location import StoreError
from tests.conftest import REPO

_HOLD = (
    "import fcntl, os, signal, sys\n"
    "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"  # the request to give the lease back, 45 s before it ends
    "file = os.open(sys.argv[1], os.O_RDWR)\n"
    "fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """Let nobody open a file."""
    command = [sys.executable, "-c", _HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "held\n":
            pytest.skip("this filesystem has no leases")
        yield
        holder.communicate()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "READ_TIMEOUT_S", 1.0)


def test_a_read_is_given_up_and_others_go_on(tmp_path: Path) -> None:
    held, other = tmp_path / "held.png", tmp_path / "other.png"
    held.write_bytes(b"h")
    other.write_bytes(b"o")
    with _held(held):
        for read in (read_bytes, lambda uri: deadline.run_in_time(lambda: read_bytes(uri))):
            with pytest.raises(StoreError, match=r"held\.png: .*not read within 1 s; the same command continues"):
                read(str(held))
            assert read(str(other)) == b"o"
    assert read_bytes(str(held)) == b"h"


def test_what_a_read_raises_is_raised_here(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(BadImage, match="no such file"):
            read_bytes(str(tmp_path / "none.png"))


def test_a_mount_that_gives_up_by_itself_is_no_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(_: str) -> None:
        raise OSError(110, "Connection timed out")

    monkeypatch.setattr("ancd_ray.data.images._check_file", give_up)
    with pytest.raises(StoreError, match="Connection timed out"):
        read_bytes(str(tmp_path / "a.png"))


def test_a_fork_reads_as_well(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    code = (
        "import os, sys\n"
        "from ancd_ray.data.images import read_bytes\n"
        "assert read_bytes(sys.argv[1]) == b'a'\n"
        "process = os.fork()\n"
        "assert read_bytes(sys.argv[1]) == b'a'\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) if process else 0)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    assert subprocess.run(command, cwd=REPO, timeout=60, check=False).returncode == 0


def test_a_job_ends_with_one_line_and_goes_on_later(
    small_job: Callable[..., Job], demo_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(demo_root, tmp_path / "archive")
    cheap = ("detector={name: ground_truth}", "discovery.method=ward", "data.base=null")
    job, file = tmp_path / "job.yaml", tmp_path / "archive" / "tile" / "test" / "crack" / "000.png"
    job.write_text(dump_resolved(small_job(tmp_path / "out", f"data.root={tmp_path}/archive", *cheap)))
    with _held(file):
        ended = CliRunner().invoke(main, ["submit", str(job)])
    assert ended.exit_code == 1, ended.output
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {file}: storage does not answer")
    again = CliRunner().invoke(main, ["submit", str(job)])
    assert again.exit_code == 0, again.output
    assert (Path(again.stdout.strip()) / "report.html").is_file()
