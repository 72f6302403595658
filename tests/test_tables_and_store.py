"""The contract of tables, and files that appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ancd_ray.data.location import Location, StoreError
from ancd_ray.data.lock import Busy, lock_folder
from ancd_ray.data.store import Folder, local_copy
from ancd_ray.data.tables import METRICS, SCHEMAS, conform
from ancd_ray.engine.integrity import inspect_folder
from ancd_ray.engine.outputs import Output, ShardResult, commit_shard

ROW = {"product": "p", "level": "image", "name": "nmi", "value": 0.5}


def test_rows_are_conformed() -> None:
    table = conform([ROW, {**ROW, "value": None}], METRICS)
    assert table.schema.equals(METRICS, check_metadata=True)
    assert conform(table.select(["value", "name", "level", "product"]), METRICS).equals(table)
    assert conform([], METRICS).num_rows == 0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({**ROW, "level": None}, "column level has 1 empty"),
        ({key: ROW[key] for key in ("product", "level", "value")}, "missing column name"),
        ({**ROW, "value": "much"}, "column value is not double"),
        ({**ROW, "valeu": 1}, "valeu"),
    ],
)
def test_a_wrong_row_fails_where_it_is_made(row: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        conform([row], METRICS)


def test_every_schema_names_itself() -> None:
    for name, schema in SCHEMAS.items():
        assert schema.metadata[b"table"] == name.encode()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a.txt", b"old")

    def fail_midway() -> None:
        with folder._atomically("a.txt") as draft:
            Path(draft).write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert folder.read("a.txt") == b"old"
    assert folder.names() == ["a.txt"]


def test_a_killed_writer_leaves_no_draft_in_the_folder_of_a_table(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from ancd_ray.data.lock import *\n"
        "with lock_folder(Folder(sys.argv[1])):\n"
        "  with (Folder(sys.argv[1]) / 'runs' / 'r' / 'metrics')._atomically('part.parquet') as draft:\n"
        "    open(draft, 'w').write('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not list((tmp_path / "runs" / "r" / "metrics").iterdir())
    drafts = tmp_path / ".drafts"
    assert len(list(drafts.iterdir())) == 1
    with lock_folder(Folder(str(tmp_path))):
        assert not list(drafts.iterdir())


def test_drafts_are_swept_only_by_the_job_that_has_the_lock(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    code = "import sys; from ancd_ray.data.lock import *; lock_folder(Folder(sys.argv[1])).__enter__()"
    with lock_folder(folder), folder._atomically("a.txt") as draft:
        Path(draft).write_bytes(b"whole")
        command = [sys.executable, "-c", code, str(tmp_path)]
        assert subprocess.run(command, capture_output=True, check=False).returncode
        assert Path(draft).parent == tmp_path / ".drafts"
    assert folder.read("a.txt") == b"whole"


def test_drafts_outside_of_an_output_are_hidden(tmp_path: Path) -> None:
    with Folder(str(tmp_path))._atomically("t/part.parquet") as draft:
        Path(draft).write_bytes(b"x")
        assert Path(draft).name.startswith(".")


def test_drafts_are_on_disk_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    (Folder(str(tmp_path)) / "a" / "b").write("c", b"x")
    assert flushed[:2] == [".", "a"], "new folders, then the file, then its name"
    assert flushed[2].startswith("a/b/.")
    assert flushed[3:] == ["a/b"]


def test_a_shard_counts_once_its_marker_is_there(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    done = commit_shard(folder, 3, ShardResult({"metrics": [ROW], "quarantine": []}, {"x": 1}), 0.1)
    assert inspect_folder(folder).shards == {3: done}
    assert "quarantine" not in done.parts
    assert pq.read_table(tmp_path / done.parts["metrics"].file).num_rows == 1
    assert Output.find(folder) is None, "no manifest, no output"


def test_arrow_files_are_read_back(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    table = pa.table({"a": [1, 2]})
    assert folder.write_arrow("t.arrow", table.schema, iter([table, table])) == (4, folder.sha256("t.arrow"))
    assert folder.open_arrow("t.arrow").equals(pa.concat_tables([table, table]))
    assert folder.write_arrow("none.arrow", table.schema, iter([]))[0] == 0
    assert folder.open_arrow("none.arrow").equals(table.slice(0, 0))


def test_one_job_at_a_time(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    code = (
        "import sys; from ancd_ray.data.lock import *\n"
        "try:\n  lock_folder(Folder(sys.argv[1])).__enter__()\nexcept Busy as error: print(error); sys.exit(9)"
    )
    with lock_folder(folder):
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert other.returncode == 9
    assert "another job writes here" in other.stdout
    with lock_folder(folder):
        pass


def test_an_unknown_scheme_is_one_line() -> None:
    with pytest.raises(StoreError, match="nowhere://x"):
        Location.parse("nowhere://x").open()
    assert issubclass(Busy, StoreError)


def test_local_files_are_not_copied(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    with local_copy(str(file)) as path:
        assert path == file
