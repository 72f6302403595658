"""Nights of an archive: a class that no discovery saw, ids and names that stay, and what people do meanwhile."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.data.demo.generate import generate
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from ancd_ray.jobs.classify import run as module
from ancd_ray.jobs.classify.plan import make
from ancd_ray.jobs.identity import assign, edits, pool
from ancd_ray.jobs.identity.tables import read_classes, read_members
from ancd_ray.jobs.nights import deliver
from tests.conftest import REPO, Ran
from tests.nights import make_job, run_night

HELD_BACK = "stain"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images of which one class comes later."""
    root = tmp_path_factory.mktemp("source")
    generate(root, images=170, normals=4, base=3, seed=3, size=96)
    assert (root / "tile/test" / HELD_BACK).is_dir()
    return root


@pytest.fixture(scope="module")
def discovered(source: Path, tmp_path_factory: pytest.TempPathFactory, run_job: Callable[[Job], Ran]) -> Folder:
    """The run of a discovery without the class that comes later."""
    from ancd_ray.config.load import validate

    output = tmp_path_factory.mktemp("discovered")
    document = {
        "name": "first",
        "data": {
            "root": str(source),
            "products": [{"name": "tile", "layout": "mvtec", "path": "tile", "exclude": [HELD_BACK, "good"]}],
        },
        "detector": {"name": "ground_truth"},
        "discovery": {"method": "ward"},
        "resources": {"in_process_below": 100_000},
        "output": str(output),
    }
    return run_job(validate(document)).folder


@pytest.fixture
def archive(source: Path, tmp_path: Path) -> Path:
    """An archive with the masks of all images and none of the images yet."""
    root = tmp_path / "archive"
    shutil.copytree(source / "tile/ground_truth", root / "tile/ground_truth")
    (root / "tile/test").mkdir()
    return root


def _arrive(source: Path, archive: Path, label: str, start: int, stop: int) -> int:
    files = sorted((source / "tile/test" / label).iterdir())[start:stop]
    for file in files:
        (archive / "tile/test" / label).mkdir(exist_ok=True)
        shutil.copy2(file, archive / "tile/test" / label / file.name)
    return len(files)


def _others(source: Path) -> list[str]:
    return sorted({folder.name for folder in (source / "tile/test").iterdir()} - {HELD_BACK, "good"})


def _read(output: Path, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(str(output / "archive" / table)).to_pyarrow_table().to_pylist()
    return rows


def _classes(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["classes", *arguments])


def _count_names(output: Path) -> list[tuple[str | None, int]]:
    """Counts images by the names of their classes, as a user would."""
    with duckdb.connect() as connection:
        for name, table in (("images", "image_predictions"), ("classes", "classes")):
            connection.register(name, DeltaTable(str(output / "archive" / table)).to_pyarrow_dataset())
        return connection.execute(
            "select name, count(*) from images join classes on images.class_id = classes.id group by name"
        ).fetchall()


def test_a_class_arrives_is_found_accepted_and_classified(
    source: Path, discovered: Folder, archive: Path, tmp_path: Path
) -> None:
    output, (kind, *_) = tmp_path / "out", _others(source)
    job = make_job(archive, output, discovered, reclassify=False, rediscover={"at": 15}, alerts={})
    for other in _others(source):
        _arrive(source, archive, other, 0, 8)
    _, first = run_night(job)
    assert first["alerts"] == []
    known = {row["image_id"]: row["class_id"] for row in _read(output, "image_predictions")}
    ids = set(known.values())
    assert _classes("name", str(output), min(ids), "scratch & <b>").exit_code == 0

    held = _arrive(source, archive, HELD_BACK, 0, 22)
    folder, second = run_night(job)
    (candidate,) = [row for row in read_classes(Folder(str(output))).values() if row["status"] == "candidate"]
    assert any(candidate["id"] in alert for alert in second["alerts"])
    assert "scratch & <b>" in second["products"][0]["classes"], "named once, shown from then on"
    rows = _read(output, "region_predictions")
    label_of = {row["region_id"]: row["label"] for row in rows}
    members = read_members(Folder(str(output)), "tile")
    own = [label_of[region] for region, row in members.items() if row["class_id"] == candidate["id"]]
    unknown = [row for row in rows if row["label"] == HELD_BACK and row["is_unknown"]]
    assert len(unknown) > 0.7 * held
    assert own.count(HELD_BACK) >= 0.8 * len(unknown), "most of its unknown regions are in one candidate"
    assert own.count(HELD_BACK) >= 0.8 * len(own)
    night = folder.read_json(deliver.NIGHT)
    assert night["products"][0]["candidates"][0]["id"] == candidate["id"]
    page = folder.read(deliver.PAGE).decode()
    assert "scratch &amp; &lt;b&gt;" in page
    assert "<b>scratch" not in page

    assert _classes("accept", str(output), candidate["id"]).exit_code == 0
    accepted = [row for row in _read(output, "image_predictions") if row["class_id"] == candidate["id"]]
    assert len(accepted) >= 0.6 * held, "what was unknown has its class at once"
    assert not any(row["is_unknown"] for row in accepted)
    regions = DeltaTable(str(output / "archive/region_predictions")).to_pyarrow_dataset()
    assert regions.count_rows(ds.field("region_id") == rows[0]["region_id"]) == 1, "readers can filter"
    _arrive(source, archive, HELD_BACK, 22, 30)
    _arrive(source, archive, kind, 8, 12)
    _, third = run_night(job)
    rows = _read(output, "image_predictions")
    after = {row["image_id"]: row["class_id"] for row in rows}
    assert {image: after[image] for image in known} == known, "known images keep their class"
    assert all(after[row["image_id"]] == candidate["id"] for row in accepted), "a later night leaves it"
    new = [row for row in rows if row["model"] == third["products"][0]["model"]]
    found = Counter((row["label"], row["class_id"]) for row in new if not row["is_unknown"])
    assert found[HELD_BACK, candidate["id"]] >= 6, found
    assert found[kind, candidate["id"]] == 0, found
    assert third["products"][0]["new"] == 12
    assert ("scratch & <b>", Counter(after.values())[min(ids)]) in _count_names(output)
    assert (output / "nights/index.html").exists()


def test_a_candidate_whose_job_was_killed_is_made_good(
    source: Path, discovered: Folder, archive: Path, tmp_path: Path
) -> None:
    job = make_job(archive, tmp_path / "out", discovered, rediscover={"at": 15, "accept": "auto"})
    _arrive(source, archive, HELD_BACK, 0, 22)
    with patch.object(pool, "change_classes", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        run_night(job)
    root = Folder(str(tmp_path / "out"))
    (lost,) = {row["class_id"] for row in read_members(root, "tile").values()} - read_classes(root).keys()
    run_night(job)
    assert read_classes(root)[lost]["status"] == "active"
    rows = _read(tmp_path / "out", "image_predictions")
    assert Counter(row["class_id"] for row in rows if not row["is_unknown"])[lost] >= 15, "accepted, so it has its rows"


def test_who_accepts_a_class_is_killed(source: Path, discovered: Folder, archive: Path, tmp_path: Path) -> None:
    job = make_job(archive, tmp_path / "out", discovered, reclassify=False, rediscover={"at": 15})
    _arrive(source, archive, HELD_BACK, 0, 22)
    run_night(job)
    root = Folder(str(tmp_path / "out"))
    (candidate,) = [own for own, row in read_classes(root).items() if row["status"] == "candidate"]
    with patch.object(assign, "write_rows", side_effect=[None, KeyboardInterrupt]), pytest.raises(KeyboardInterrupt):
        edits.set_status(root, candidate, "active")
    run_night(job)
    for table in ("image_predictions", "region_predictions"):
        assert sum(row["class_id"] == candidate for row in _read(tmp_path / "out", table)) >= 15


def test_a_night_without_images_and_one_with_garbage(
    source: Path, discovered: Folder, archive: Path, tmp_path: Path
) -> None:
    job = make_job(archive, tmp_path / "out", discovered, reclassify=False, alerts={})
    good = archive / "tile/test" / _others(source)[0]
    _arrive(source, archive, good.name, 0, 12)
    first, _ = run_night(job)
    again, summary = run_night(job)
    assert again.path == first.path
    assert summary["alerts"] == [], "told by the job before"
    for number in range(3):
        (good / f"bad{number}.png").write_bytes(b"no image")
    last, summary = run_night(job)
    assert summary["alerts"] == ["tile: 100% of the new images are quarantined, more than 5%"]
    night = last.read_json(deliver.NIGHT)["products"][0]
    assert (night["new"], night["quarantined"], len(night["quarantine"])) == (3, 3, 3)


def test_a_product_without_a_model_does_not_stop_the_others(
    source: Path, discovered: Folder, archive: Path, tmp_path: Path
) -> None:
    _arrive(source, archive, _others(source)[0], 0, 3)
    shutil.copytree(archive / "tile", archive / "plate")
    models = tmp_path / "models"
    shutil.copytree((discovered / "models/tile").path, models / "tile")
    products = [{"name": name, "layout": "mvtec", "path": name} for name in ("tile", "plate")]
    keys = {"data": {"root": str(archive), "products": products}, "alerts": {}}
    job = make_job(archive, tmp_path / "out", f"{models}/{{product}}", **keys)
    _, summary = run_night(job)
    assert [product["product"] for product in summary["products"]] == ["tile"]
    assert summary["alerts"][0].startswith("plate: not classified: ")
    (models / "plate").mkdir()
    document = json.loads((models / "tile/model.json").read_text())
    (models / "plate/model.json").write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(JobError, match="format 99"):
        make(
            make_job(
                archive, tmp_path / "out", f"{models}/{{product}}", data={**keys["data"], "products": products[1:]}
            )
        )


def test_the_registry_is_away(source: Path, discovered: Folder, archive: Path, tmp_path: Path) -> None:
    _arrive(source, archive, _others(source)[0], 0, 3)
    place = str((discovered / "models/tile").path)
    with patch.object(tracking, "download_model", return_value=place):
        run_night(make_job(archive, tmp_path / "out", "models:/tile@champion"))
    _arrive(source, archive, _others(source)[0], 3, 5)
    job = make_job(archive, tmp_path / "out", "models:/tile@champion")
    away = tracking.RegistryAway("models:/tile@champion: no answer")
    with patch.object(tracking, "download_model", side_effect=away):
        assert "the model of the last job" in make(job).warnings[0]
        _, summary = run_night(job)
        assert summary["products"][0]["new"] == 2
        with pytest.raises(JobError, match="no answer"):
            make(make_job(archive, tmp_path / "elsewhere", "models:/tile@champion"))
    missing = tracking.TrackingProblem("models:/tile@champion: no such alias")
    with patch.object(tracking, "download_model", side_effect=missing), pytest.raises(JobError, match="no such alias"):
        make(job)


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Any], list[int]]]:
    """A server that takes JSON: its URL, what it got, and the codes it answers with (200 when they are used up)."""
    got: list[Any] = []
    codes: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(codes.pop(0) if codes else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got, codes
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_the_night_once_and_never_fails_the_job(
    source: Path,
    discovered: Folder,
    archive: Path,
    tmp_path: Path,
    hook: tuple[str, list[Any], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliver, "_PAUSE_S", 0.01)
    url, got, codes = hook
    folder = archive / "tile/test" / _others(source)[0]
    _arrive(source, archive, folder.name, 0, 2)
    (folder / "bad.png").write_bytes(b"no image")
    codes += [500]
    job = make_job(archive, tmp_path / "out", discovered, alerts={"webhook": url})
    run_folder, summary = run_night(job)
    assert len(got) == 2, "the second try"
    assert got[-1] == run_folder.read_json(deliver.NIGHT)
    run_night(job)
    assert len(got) == 2
    (folder / "worse.png").write_bytes(b"no image")
    job = make_job(archive, tmp_path / "out", discovered, alerts={"webhook": "http://127.0.0.1:9/"})
    _, summary = run_night(job)
    assert summary["alerts"]


def test_a_webhook_that_hangs_is_given_up(
    source: Path, discovered: Folder, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "_PAUSE_S", 0.01)
    monkeypatch.setattr(deliver, "_TIMEOUT_S", 0.2)
    folder = archive / "tile/test" / _others(source)[0]
    _arrive(source, archive, folder.name, 0, 2)
    (folder / "bad.png").write_bytes(b"no image")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        start = time.monotonic()
        run_folder, summary = run_night(make_job(archive, tmp_path / "out", discovered, alerts={"webhook": url}))
    assert time.monotonic() - start < 60
    assert summary["alerts"]
    assert run_folder.exists(deliver.NIGHT)


def test_a_class_is_merged_while_a_night_runs(
    source: Path, discovered: Folder, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(archive, tmp_path / "out", discovered)
    for other in _others(source):
        _arrive(source, archive, other, 0, 3)
    run_night(job)
    root = Folder(str(tmp_path / "out"))
    one, other, *_ = sorted(read_classes(root))
    _arrive(source, archive, _others(source)[0], 3, 5)
    run_steps = module.run_steps

    def merge_then_run(*given: Any, **keys: Any) -> Any:
        edits.merge_classes(root, [one], other)
        return run_steps(*given, **keys)

    monkeypatch.setattr(module, "run_steps", merge_then_run)
    _, summary = run_night(job)
    assert read_classes(root)[one]["merged_into"] == other
    assert len(summary["products"][0]["classes"]) == len(read_classes(root)) - 1
    rows = _read(tmp_path / "out", "image_predictions")
    assert len(rows) == summary["products"][0]["images"] == 3 * len(_others(source)) + 2


def test_late_and_duplicate_arrivals(source: Path, discovered: Folder, archive: Path, tmp_path: Path) -> None:
    job = make_job(archive, tmp_path / "out", discovered, reclassify=False)
    folder = archive / "tile/test" / _others(source)[0]
    _arrive(source, archive, folder.name, 0, 3)
    for number, file in enumerate(sorted(folder.iterdir())):
        os.utime(file, (86_400 * (number + 10),) * 2)
    run_night(job)
    _arrive(source, archive, folder.name, 3, 4)
    late = max(folder.iterdir())
    os.utime(late, (86_400.0 * 2,) * 2)
    shutil.copy2(late, late.with_name("again.png"))  # the same picture under another name is an image of its own
    shutil.copy2(
        archive / f"tile/ground_truth/{folder.name}/{late.stem}_mask.png",
        archive / f"tile/ground_truth/{folder.name}/again_mask.png",
    )
    _, summary = run_night(job)
    assert summary["products"][0]["new"] == 2
    days = sorted(row["day"].isoformat() for row in _read(tmp_path / "out", "image_predictions"))
    assert days == ["1970-01-03", "1970-01-03", "1970-01-11", "1970-01-12", "1970-01-13"]
    os.utime(late, (86_400.0 * 5,) * 2)  # delivered once more
    _, summary = run_night(job)
    rows = _read(tmp_path / "out", "image_predictions")
    assert summary["products"][0]["images"] == len(rows) == len({row["image_id"] for row in rows}) == 5


@pytest.mark.slow
def test_the_example_tells_its_story(tmp_path: Path) -> None:
    command = [sys.executable, str(REPO / "examples/nightly/five_nights.py"), str(tmp_path / "story")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    table = told.partition("number of images.")[2].split()
    counts = {(label, name): int(n) for label, name, n in zip(table[::3], table[1::3], table[2::3], strict=True)}
    assert counts["stain", "stain"] >= 30, told
    assert all(n >= 35 for (label, _), n in counts.items() if label != "stain"), told


def test_the_exit_code_says_that_there_are_alerts(
    source: Path, discovered: Folder, archive: Path, tmp_path: Path
) -> None:
    folder = archive / "tile/test" / _others(source)[0]
    _arrive(source, archive, folder.name, 0, 2)
    (folder / "bad.png").write_bytes(b"no image")
    text = json.dumps(
        make_job(archive, tmp_path / "out", discovered, alerts={}).model_dump(mode="json", exclude_unset=True)
    )
    job = tmp_path / "job.yaml"
    job.write_text(text)
    with patch.object(tracking, "find_store", return_value=None):
        assert CliRunner().invoke(main, ["submit", str(job)]).exit_code == 3
        assert CliRunner().invoke(main, ["submit", str(job)]).exit_code == 0


def test_what_people_say_of_classes(source: Path, discovered: Folder, archive: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for other in _others(source):
        _arrive(source, archive, other, 0, 3)
    run_night(make_job(archive, output, discovered))
    root, place = Folder(str(output)), str(output)
    one, other, *_ = sorted(read_classes(root))
    assert _classes("merge", place, one, "--into", other).exit_code == 0
    _arrive(source, archive, _others(source)[0], 3, 4)
    _, summary = run_night(make_job(archive, output, discovered))
    assert len(summary["products"][0]["classes"]) == len(read_classes(root)) - 1, "merged ones are counted as one"
    assert one in {row["class_id"] for row in _read(output, "image_predictions")} | {one}
    assert _classes("accept", place, one).exit_code == 0
    assert read_classes(root)[one]["merged_into"] is None
    assert _classes("name", place, one, "crack").exit_code == 0
    assert "is named 'crack' already" in _classes("name", place, other, "crack").output
    assert "has no class 'tile-c9999'" in _classes("name", place, "tile-c9999", "x").output
    assert "cannot be merged into itself" in _classes("merge", place, one, "--into", one).output
    assert _classes("name", place, other, "=HYPERLINK(1)").exit_code == 0
    table = tmp_path / "classes.csv"
    exported = _classes("export", place).output
    assert "'=HYPERLINK(1)" in exported
    table.write_text(exported.replace("crack", "long crack"))
    assert _classes("import", place, str(table)).output.startswith("1 of ")
    assert read_classes(root)[one]["name"] == "long crack"
    assert read_classes(root)[other]["name"] == "=HYPERLINK(1)"
    region = next(row["region_id"] for row in _read(output, "region_predictions") if row["class_id"] == one)
    (tmp_path / "regions.csv").write_text(f"region_id\n{region}\n")
    new = _classes("split-off", place, one, "--regions", str(tmp_path / "regions.csv"), "--name", "chip").output.strip()
    assert read_classes(root)[new]["name"] == "chip"
    assert read_members(root, "tile")[region]["class_id"] == new
    (tmp_path / "regions.csv").write_text(f"region_id,class_id\n{region},{other}\n")
    assert _classes("import", place, str(tmp_path / "regions.csv")).exit_code == 0
    assert (
        read_members(root, "tile")[region] | {"class_id": other, "source": "person"}
        == read_members(root, "tile")[region]
    )
    (tmp_path / "regions.csv").write_text(f"region_id,class_id\n{region},nothing\n")
    assert "line 2: " in _classes("import", place, str(tmp_path / "regions.csv")).output
    with pytest.raises(edits.ClassError, match="at most 100"):
        edits.name_class(root, one, "x" * 101)
    assert "long crack" in _classes("list", place).output
    assert "long crack" in _classes("show", place, one).output


def test_cleaning_leaves_what_a_person_may_be_about_to_commit(
    source: Path, discovered: Folder, archive: Path, tmp_path: Path
) -> None:
    _arrive(source, archive, _others(source)[0], 0, 2)
    run_night(make_job(archive, tmp_path / "out", discovered))
    files = [tmp_path / "out/archive/classes" / name for name in ("part-new.parquet", "part-old.parquet")]
    for file in files:
        file.write_bytes(b"rows")
    os.utime(files[1], (0, 0))
    assert CliRunner().invoke(main, ["clean", str(tmp_path / "out"), "--keep", "1"]).exit_code == 0
    assert [file.exists() for file in files] == [True, False]


def test_a_discovery_keeps_the_ids_of_classes(
    source: Path,
    tmp_path: Path,
    run_job: Callable[[Job], Ran],
    discovered: Folder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ancd_ray.config.load import parse, validate

    job = validate(
        parse(discovered.read("job.yaml"), "job.yaml"), [f"output={tmp_path / 'out'}", f"data.root={source}"]
    )
    first = run_job(job)
    ids = [each["id"] for each in first.folder.read_json("models/tile/model.json")["classes"]]
    assert ids == [f"tile-c{i:04d}" for i in range(len(ids))]
    again = run_job(
        validate(job.model_dump(mode="json", exclude_unset=True, by_alias=True), ["discovery.method=kmeans"])
    )
    after = [each["id"] for each in again.folder.read_json("models/tile/model.json")["classes"]]
    assert len(set(ids) & set(after)) >= len(ids) - 1
    more = run_job(
        validate(job.model_dump(mode="json", exclude_unset=True, by_alias=True), [f"classes.novel={len(ids) + 1}"])
    )
    grown = [each["id"] for each in more.folder.read_json("models/tile/model.json")["classes"]]
    assert set(ids) < set(grown), "one class was divided, and a part of it is new"
    (new,) = set(grown) - set(ids) - set(after)
    assert f"new class {new}" in capsys.readouterr().err
    assert read_classes(Folder(str(tmp_path / "out")))[new]["status"] == "candidate"
