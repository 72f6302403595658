"""`ancd-ray compact`: many nights leave few files, the same rows, and nothing that a killed writer had begun."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder
from tests.conftest import REPO, Ran
from tests.nights import TABLES, make_job, read_published, run_night


def _invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _read(output: Path) -> dict[str, list[tuple[object, ...]]]:
    return {table: read_published(output, table) for table in TABLES}


def _list_files(output: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in (output / "archive").rglob("*") if path.is_file()}


def _count_data_files(output: Path, table: str) -> int:
    return len(list((output / "archive" / table).glob("product=*/*.parquet")))


@pytest.fixture
def archive(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the small archive, to be changed."""
    shutil.copytree(demo_root, tmp_path / "archive", copy_function=shutil.copy2)
    return tmp_path / "archive"


@pytest.fixture
def nights(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> tuple[Job, Path]:
    """Three nights, each with a new image, one of which is broken."""
    job = make_job(archive, tmp_path / "out", finished[1].folder)
    for content in (None, (archive / "tile/test/good/000.png").read_bytes(), b"no image"):
        if content:
            (archive / f"tile/test/good/new-{len(content)}.png").write_bytes(content)
        run_night(job)
    return job, tmp_path / "out"


def test_few_files_and_the_same_rows(nights: tuple[Job, Path]) -> None:
    job, output = nights
    rows, files = _read(output), _list_files(output)
    assert _count_data_files(output, "image_predictions") == 2

    forecast = _invoke("compact", output, "--dry-run")
    assert _list_files(output) == files
    done = _invoke("compact", output)
    assert _read(output) == rows
    assert re.search(r"^image_predictions +2 files → 1 .* 0 old files deleted, 0 bytes$", done.stdout, re.MULTILINE)
    assert [line.split("bytes")[0].split("→")[0] for line in done.stdout.splitlines()] == [
        line.split("bytes")[0].split("→")[0] for line in forecast.stdout.splitlines()
    ]
    table = DeltaTable(str(output / "archive/image_predictions"))
    version = table.version()
    table.load_as_version(version - 1)
    assert table.to_pyarrow_table().num_rows == len(rows["image_predictions"]), "a reader goes on with its version"

    assert _invoke("compact", output).exit_code == 0
    assert DeltaTable(str(output / "archive/image_predictions")).version() == version, "there is nothing left to do"

    before = _list_files(output)
    would = _invoke("compact", output, "--older-than", "0h", "--dry-run")
    assert _list_files(output) == before
    deleted = _invoke("compact", output, "--older-than", "0h")
    assert deleted.stdout == would.stdout
    gone = [size for name, size in before.items() if not Path(name).exists()]
    told = [int(number.replace(",", "")) for number in re.findall(r"deleted, ([\d,]+) bytes", deleted.stdout)]
    assert sum(told) == sum(gone) > 0
    assert all(_count_data_files(output, name) <= 1 for name in TABLES)
    assert _read(output) == rows

    _, summary = run_night(job)
    assert (summary["images"], summary["new"]) == (27, 0)
    assert _read(output) == rows, "what is compacted is not published again"


def test_what_cannot_be_compacted_is_one_line(nights: tuple[Job, Path], tmp_path: Path) -> None:
    _, output = nights
    nowhere = tmp_path / "nowhere"
    for folder in (nowhere, tmp_path):
        result = _invoke("compact", folder)
        assert result.exit_code == 1
        assert re.fullmatch(rf"error: {folder}: no published tables in archive/; .*\n", result.stderr)
    assert not nowhere.exists()
    with lock_folder(Folder(str(output))):
        busy = _invoke("compact", output)
    assert re.fullmatch(r"error: .*another job writes here \(process \d+\).*\n", busy.stderr)
    folder = output / "archive/region_predictions"
    next(folder.glob("product=tile/*.parquet")).unlink()
    result = _invoke("compact", output)
    assert re.fullmatch(rf"error: {folder}: cannot be compacted \(.*\); submit the job .*\n", result.stderr)
    log = output / "archive/region_predictions/_delta_log/00000000000000000001.json"
    log.write_text(log.read_text()[:100])
    for command in ("compact", "submit"):
        job = tmp_path / "job.yaml"
        job.write_text(dump_resolved(nights[0]))
        result = _invoke(command, output if command == "compact" else job)
        assert result.exit_code == 1
        assert re.search(rf"error: {folder}: the log of this table is broken \(.*\); delete this folder", result.stderr)
        assert "Traceback" not in result.stderr


def test_an_age_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "12h, 30d, 8w" in _invoke("compact", tmp_path, "--older-than", "30").stderr


def test_killed_between_the_files_and_the_commit(nights: tuple[Job, Path], archive: Path, tmp_path: Path) -> None:
    """Readers see nothing of it, `clean` sweeps what it left, and the next night publishes what was missing."""
    job, output = nights
    shutil.copy(archive / "tile/test/good/001.png", archive / "tile/test/good/last.png")
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(job))
    rows, files = _read(output), _list_files(output)
    command = [sys.executable, "-m", "tests.pipeline.killed_commit", "image_predictions", str(file)]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    folder = str(output / "archive/image_predictions")
    left = {name: size for name, size in _list_files(output).items() if name not in files and folder in name}
    assert [Path(name).suffix for name in left] == [".parquet"]
    assert read_published(output, "image_predictions") == rows["image_predictions"]

    would = _invoke("clean", output, "--dry-run")
    assert left.keys() <= _list_files(output).keys()
    swept = _invoke("clean", output)
    assert swept.stdout == would.stdout
    told = [line.split()[-1] for line in swept.stdout.splitlines() if "archive/" in line]
    assert [str(output / place) for place in told] == list(left)
    assert not left.keys() & _list_files(output).keys()
    assert read_published(output, "image_predictions") == rows["image_predictions"]

    _, summary = run_night(job)
    assert summary["images"] == 28
    assert len(read_published(output, "image_predictions")) == len(rows["image_predictions"]) + 1


def test_clean_leaves_a_table_whose_log_is_broken(nights: tuple[Job, Path]) -> None:
    _, output = nights
    log = output / "archive/quarantine/_delta_log/00000000000000000000.json"
    log.write_text("{")
    files = _list_files(output)
    result = _invoke("clean", output)
    assert result.exit_code == 0
    assert "archive/quarantine: the log of this table is broken" in result.stderr
    assert _list_files(output) == files
