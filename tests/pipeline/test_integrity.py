"""What is recorded is checked: damaged files are noticed, named and made again; nothing is taken on trust."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.data import store
from ancd_ray.data.store import Folder
from ancd_ray.engine.context import StageError
from ancd_ray.engine.outputs import Output, ShardResult, commit_shard
from ancd_ray.engine.status import PlanStatus, plan_status
from ancd_ray.jobs.plan import make
from ancd_ray.jobs.results import JobResults
from ancd_ray.jobs.run import rerender
from ancd_ray.jobs.run_folder import check_counts, find_complete
from tests.conftest import Ran

RunJob = Callable[[Job], Ran]


@pytest.fixture
def copied(finished: tuple[Job, Ran], small_job: Callable[..., Job], tmp_path: Path) -> Job:
    """The finished job with a copy of its output, to be damaged."""
    shutil.copytree(finished[0].output_root, tmp_path / "out")
    return small_job(tmp_path / "out")


def _step(job: Job, name: str) -> Path:
    (folder,) = (Path(job.output_root) / "steps" / name).glob("tile-*")
    return folder


def _status(job: Job, name: str) -> PlanStatus:
    plan = make(job)
    statuses = plan_status(plan.steps, plan.root)
    return next(status for status in statuses if (status.step.product, status.step.name) == ("tile", name))


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _same_results(run: Ran, other: Ran) -> None:
    for table in ("image_predictions", "region_predictions"):
        rows = ds.dataset(str(run.folder.path / table)).to_table()
        assert rows.equals(ds.dataset(str(other.folder.path / table)).to_table())


@pytest.mark.parametrize("content", [b"", b'{"step": "det', b"null", b"{}", b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read_means_unfinished(
    finished: tuple[Job, Ran], copied: Job, run_job: RunJob, content: bytes
) -> None:
    (_step(copied, "detect") / "manifest.json").write_bytes(content)
    assert "manifest.json cannot be read" in _status(copied, "detect").why
    run = run_job(copied)
    assert run.computed == {"detect"}
    _same_results(run, finished[1])


@pytest.mark.parametrize("content", [b"", b'{"index": 1', b"null", b"{}"])
def test_a_marker_that_cannot_be_read_means_unfinished(
    copied: Job, run_job: RunJob, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    folder = _step(copied, "detect")
    (folder / "manifest.json").unlink()
    (folder / "shards" / "00001.json").write_bytes(content)
    before = {file.name: file.stat().st_mtime_ns for file in (folder / "maps").iterdir()}
    status = _status(copied, "detect")
    assert (status.state, status.why) == ("continue", "shards/00001.json cannot be read; 2 shards are done")
    run_job(copied)
    assert "detect: shards/00001.json cannot be read; done again" in capsys.readouterr().err
    changed = {file.name for file in (folder / "maps").iterdir() if before[file.name] != file.stat().st_mtime_ns}
    assert changed == {"part-00001.parquet"}


@pytest.mark.parametrize("finished_step", [True, False])
@pytest.mark.parametrize("damage", ["missing", "sha256", "rows"])
def test_a_damaged_part_is_made_again(
    finished: tuple[Job, Ran],
    copied: Job,
    run_job: RunJob,
    capsys: pytest.CaptureFixture[str],
    damage: str,
    finished_step: bool,
) -> None:
    folder = _step(copied, "detect")
    part = folder / "maps" / "part-00001.parquet"
    manifest, marker = folder / "manifest.json", folder / "shards" / "00001.json"
    if damage == "missing":
        part.unlink()
    elif damage == "sha256":
        _flip(part)
    else:
        for file, parts in ((marker, ["parts", "maps"]), (manifest, ["tables", "maps", 1])):
            document = json.loads(file.read_text())
            found = document
            for key in parts:
                found = found[key]
            found["rows"] += 1
            file.write_text(json.dumps(document))
    if not finished_step:
        manifest.unlink()
    others = {file: file.stat().st_mtime_ns for file in (folder / "maps").iterdir() if file != part}
    words = {"missing": "is missing", "sha256": "is not as it was written", "rows": "has other rows than recorded"}
    status = _status(copied, "detect")
    if damage == "missing":
        assert (status.state, status.why.partition(";")[0]) == ("continue", "maps/part-00001.parquet is missing")
    else:
        assert status.state == ("cached" if finished_step else "continue"), "the plan reads no content"
    run = run_job(copied)
    assert run.computed == {"detect"}
    assert f"tile · detect: maps/part-00001.parquet {words[damage]}; done again" in capsys.readouterr().err
    assert others == {file: file.stat().st_mtime_ns for file in others}, "only the damaged shard is done again"
    _same_results(run, finished[1])


@pytest.mark.parametrize(
    ("step", "file"), [("train", "model.safetensors"), ("fit_detector", "memory_bank.safetensors")]
)
def test_a_damaged_file_of_a_step_is_made_again(
    finished: tuple[Job, Ran], copied: Job, run_job: RunJob, step: str, file: str
) -> None:
    _flip(_step(copied, step) / file)
    run = run_job(copied)
    assert run.computed == {step}
    _same_results(run, finished[1])


@pytest.mark.parametrize(("step", "file"), [("train", "model.safetensors"), ("detect", "maps/part-00001.parquet")])
def test_the_plan_sees_a_file_of_another_size(copied: Job, step: str, file: str) -> None:
    path = _step(copied, step) / file
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{file} is not as it was written" in _status(copied, step).why


def test_the_plan_reads_no_result_and_submit_reads_each_file_once(
    copied: Job, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()
    hash_file = store._hash_file.__wrapped__

    def count(uri: str, name: str, size: int, time: int) -> str:
        read[f"{uri}/{name}"] += 1
        return str(hash_file(uri, name, size, time))

    monkeypatch.setattr(store, "_hash_file", count)  # without its cache
    plan = make(copied)
    assert {status.state for status in plan_status(plan.steps, plan.root)} == {"cached"}
    assert not read
    assert run_job(copied).computed == set()
    results = {str(path) for path in Path(copied.output_root).glob("steps/*/*/*/part-*")}
    files = {name: times for name, times in read.items() if not name.endswith("summary.json")}
    assert results <= files.keys()
    assert any("/runs/" in name for name in files)
    assert set(files.values()) == {1}


def test_rows_are_compared_when_a_part_is_read(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    row = {"product": "p", "level": "image", "name": "nmi", "value": 0.5}
    part = commit_shard(folder, 0, ShardResult({"metrics": [row]}), 0.1).parts["metrics"]
    tables = {"metrics": [{**part.__dict__, "rows": 2}]}
    folder.write_json("manifest.json", {"tables": tables, "values": {}, "fingerprint": ""})
    output = Output.find(folder)
    assert output is not None
    with pytest.raises(AncdError, match="1 rows, 2 were written") as error:
        output.table("metrics")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "lost",
    ["report.html", "summary.json", "job.yaml", "image_predictions/tile-00000.parquet", "models/tile/model.json"],
)
@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_a_run_is_done_only_if_its_files_are_there(copied: Job, run_job: RunJob, lost: str, how: str) -> None:
    folder = make(copied).run_folder
    assert find_complete(folder) is not None
    file = folder.path / lost
    before = file.read_bytes()
    if how == "deleted":
        file.unlink()
    else:
        file.write_bytes(before[:-1])
    assert find_complete(folder) is None
    run = run_job(copied)
    assert run.computed == set()
    assert find_complete(folder) is not None
    if lost.endswith("parquet"):
        assert file.read_bytes() == before
    else:
        assert file.stat().st_size > 100


def test_stale_parts_of_a_result_table_are_removed(copied: Job, run_job: RunJob) -> None:
    folder = make(copied).run_folder
    table = folder.path / "image_predictions"
    names = sorted(file.name for file in table.iterdir())
    shutil.copy(table / names[0], table / f"{names[0]}.1a2b3c4d.tmp")
    run = run_job(copied)
    assert sorted(file.name for file in table.iterdir()) == names
    assert ds.dataset(str(run.folder.path / "image_predictions")).count_rows() == 25


def test_a_record_that_cannot_be_read_is_written_anew(copied: Job, run_job: RunJob) -> None:
    folder = make(copied).run_folder
    (folder.path / "run.json").write_bytes(b"")
    run_job(copied)
    assert find_complete(folder) is not None


def test_a_report_that_is_drawn_again_is_recorded(copied: Job) -> None:
    folder = make(copied).run_folder
    rerender(folder)
    assert find_complete(folder) is not None


def test_images_are_counted_from_the_files_of_the_run(copied: Job) -> None:
    folder = make(copied).run_folder
    root = Folder(copied.output_root)
    results = JobResults.from_record(root, folder.read_json("run.json"))
    assert results is not None
    check_counts(results, folder)
    table = folder.path / "image_predictions"
    shutil.copy(table / "tile-00000.parquet", table / "tile-00007.parquet")
    with pytest.raises(StageError, match=r"product tile: 25 images were listed, .* (3\d|4\d) predictions") as error:
        check_counts(results, folder)
    assert "\n" not in str(error.value)
