"""The boundary of the command line: full disks, files in the way, dead servers and bugs are one line each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ancd_ray.cli.faults import describe
from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved


@pytest.fixture
def submit(small_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Submits the small job with overrides; tracebacks go to a temporary folder of the test."""
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    file = tmp_path / "job.yaml"

    def submitted(output: str | Path, *overrides: str, options: tuple[str, ...] = ()) -> Result:
        file.write_text(dump_resolved(small_job(Path("/nowhere"))))
        return CliRunner().invoke(main, ["submit", str(file), f"output={output}", *overrides, *options])

    return submitted


def _check(result: Result, *said: str) -> str:
    """Check that the result is a failure that one line explains, and return that line."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == errors[0], "it is the last line"
    assert len(errors[0]) < 600
    for text in said:
        assert text in errors[0]
    return errors[0]


def _read_traceback(line: str) -> str:
    path = Path(line.rpartition("the traceback is in ")[2])
    return path.read_text()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts filesystems of the test, where that is permitted."""
    points: list[Path] = []

    def mount(*options: str) -> Path:
        point = tmp_path / f"mount{len(points)}"
        point.mkdir()
        try:
            done = subprocess.run(["mount", *options, str(point)], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount")
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.strip()}")
        points.append(point)
        return point

    yield mount
    for point in reversed(points):
        subprocess.run(["umount", str(point)], check=True)


@pytest.mark.slow
def test_disk_full(submit: Callable[..., Result], mounted: Callable[..., Path]) -> None:
    disk = mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs")
    line = _check(submit(disk / "out"), "no space is left on the disk", "the traceback is in")
    assert "Errno 28" in _read_traceback(line)


def test_read_only_output(submit: Callable[..., Result], mounted: Callable[..., Path]) -> None:
    disk = mounted("-t", "tmpfs", "-o", "ro", "tmpfs")
    _check(submit(disk / "out"), "Read-only file system", "set another output=")


@pytest.mark.parametrize("output", ["/dev/null/x", "{file}", "{file}/x"])
def test_output_below_a_file(output: str, submit: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("here already")
    _check(submit(output.format(file=file)), "set another output=")
    assert file.read_text() == "here already"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_weights(suffix: str, submit: Callable[..., Result], tmp_path: Path) -> None:
    weights = tmp_path / f"lite{suffix}"
    weights.write_bytes(b"\x10\x27\0\0\0\0\0\0{" if suffix == ".safetensors" else b"PK\x03\x04 cut off")
    result = submit(tmp_path / "out", f"backbone.weights={weights}")
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: backbone.weights: ")
    assert str(weights) in line


def test_unreachable_object_store(
    submit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("ancd_ray.data.location.ATTEMPTS", 3)  # test_faults.py has the patience that jobs have
    result = submit("s3://KEY:HUSH@bucket/p")
    _check(result, "storage does not answer")
    assert "HUSH" not in result.output
    assert not any("HUSH" in path.read_text() for path in (tmp_path / "temp").iterdir())


@pytest.mark.parametrize("variable", [True, False])
def test_dead_ray(
    variable: bool, submit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    start = time.monotonic()
    address = "auto" if variable else "127.0.0.1:9"
    result = submit(tmp_path / "out", "resources.in_process_below=0", options=("--address", address))
    _check(result, "Ray at 127.0.0.1:9 does not answer")
    assert time.monotonic() - start < 20, "Ray itself waits for a minute and a half"


def test_bug(submit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("https://me:HUSH@host\nand more lines")

    monkeypatch.setattr("ancd_ray.jobs.run.run_steps", broken)
    line = _check(submit(tmp_path / "out"), "KeyError", f"the traceback is in {tmp_path}/out/logs/error-")
    kept = _read_traceback(line)
    assert "in broken" in kept
    assert "HUSH" not in kept + line


def test_bug_without_a_message(submit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ancd_ray.jobs.run.run_steps", broken)
    _check(submit(tmp_path / "out"), "AssertionError")


def test_bug_of_any_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("ancd_ray.jobs.run.rerender", broken)
    _check(CliRunner().invoke(main, ["report", str(tmp_path)]), "RuntimeError: no", str(tmp_path))


def test_nowhere_to_write(submit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    monkeypatch.setenv("TMPDIR", "/dev/null")
    result = submit("/dev/null/x")
    _check(result, "the traceback could not be written anywhere")


@pytest.mark.slow  # starts Ray
def test_fault_in_a_worker_of_ray(ray_of_the_tests: None) -> None:
    import ray

    @ray.remote(max_retries=0)
    def broken() -> None:
        raise OSError(28, "No space left on device", "/data/x")

    with pytest.raises(ray.exceptions.RayTaskError) as error:
        ray.get(broken.remote())
    assert describe(error.value) == (
        "/data/x: no space is left on the disk; the same command continues when there is some"
    )


def test_known_kinds() -> None:
    import torch
    from ray.exceptions import NodeDiedError, OutOfMemoryError

    assert "out of memory" in describe(MemoryError())
    assert "out of memory" in describe(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert "out of memory" in describe(OutOfMemoryError("Task was killed"))
    assert describe(NodeDiedError("the node died\nand more")).startswith("Ray: NodeDiedError: the node died")
    inner = OSError(30, "Read-only file system", "/mnt/x")
    outer = RuntimeError("while writing")
    outer.__cause__ = inner
    assert describe(outer) == "/mnt/x: cannot be used (Read-only file system); set another output="


def test_a_reader_that_goes_away() -> None:
    shown = subprocess.run(
        f"{sys.executable} -m ancd_ray schema | head -c 10",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert shown.stderr == ""
