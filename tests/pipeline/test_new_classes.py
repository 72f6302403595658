"""A class that no discovery saw: found in the pool of unknown regions, accepted, and classified from then on."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import duckdb
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from ancd_ray.data.store import Folder
from ancd_ray.jobs.identity import assign, edits, pool
from ancd_ray.jobs.identity.tables import read_classes, read_members
from ancd_ray.jobs.nights import deliver
from tests.conftest import REPO
from tests.nights import HELD_BACK, arrive, list_others, make_job, read_table, run_classes, run_night


def count_names(output: Path) -> list[tuple[str | None, int]]:
    """Counts images by the names of their classes, as a user would."""
    with duckdb.connect() as connection:
        for name, table in (("images", "image_predictions"), ("classes", "classes")):
            connection.register(name, DeltaTable(str(output / "archive" / table)).to_pyarrow_dataset())
        return connection.execute(
            "select name, count(*) from images join classes on images.class_id = classes.id group by name"
        ).fetchall()


def test_a_class_arrives_is_found_accepted_and_classified(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path
) -> None:
    output, (kind, *_) = tmp_path / "out", list_others(source)
    job = make_job(arrivals, output, discovered, reclassify=False, rediscover={"at": 15}, alerts={})
    for other in list_others(source):
        arrive(source, arrivals, other, 0, 8)
    _, first = run_night(job)
    assert first["alerts"] == []
    known = {row["image_id"]: row["class_id"] for row in read_table(output, "image_predictions")}
    ids = set(known.values())
    assert run_classes("name", str(output), min(ids), "scratch & <b>").exit_code == 0

    held = arrive(source, arrivals, HELD_BACK, 0, 22)
    folder, second = run_night(job)
    (candidate,) = [row for row in read_classes(Folder(str(output))).values() if row["status"] == "candidate"]
    assert any(candidate["id"] in alert for alert in second["alerts"])
    assert "scratch & <b>" in second["products"][0]["classes"], "named once, shown from then on"
    rows = read_table(output, "region_predictions")
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

    assert run_classes("accept", str(output), candidate["id"]).exit_code == 0
    accepted = [row for row in read_table(output, "image_predictions") if row["class_id"] == candidate["id"]]
    assert len(accepted) >= 0.6 * held, "what was unknown has its class at once"
    assert not any(row["is_unknown"] for row in accepted)
    regions = DeltaTable(str(output / "archive/region_predictions")).to_pyarrow_dataset()
    assert regions.count_rows(ds.field("region_id") == rows[0]["region_id"]) == 1, "readers can filter"
    arrive(source, arrivals, HELD_BACK, 22, 30)
    arrive(source, arrivals, kind, 8, 12)
    _, third = run_night(job)
    rows = read_table(output, "image_predictions")
    after = {row["image_id"]: row["class_id"] for row in rows}
    assert {image: after[image] for image in known} == known, "known images keep their class"
    assert all(after[row["image_id"]] == candidate["id"] for row in accepted), "a later night leaves it"
    new = [row for row in rows if row["model"] == third["products"][0]["model"]]
    found = Counter((row["label"], row["class_id"]) for row in new if not row["is_unknown"])
    assert found[HELD_BACK, candidate["id"]] >= 6, found
    assert found[kind, candidate["id"]] == 0, found
    assert third["products"][0]["new"] == 12
    assert ("scratch & <b>", Counter(after.values())[min(ids)]) in count_names(output)
    assert (output / "nights/index.html").exists()


def test_a_candidate_whose_job_was_killed_is_made_good(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path
) -> None:
    job = make_job(arrivals, tmp_path / "out", discovered, rediscover={"at": 15, "accept": "auto"})
    arrive(source, arrivals, HELD_BACK, 0, 22)
    with patch.object(pool, "change_classes", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        run_night(job)
    root = Folder(str(tmp_path / "out"))
    (lost,) = {row["class_id"] for row in read_members(root, "tile").values()} - read_classes(root).keys()
    run_night(job)
    assert read_classes(root)[lost]["status"] == "active"
    rows = read_table(tmp_path / "out", "image_predictions")
    assert Counter(row["class_id"] for row in rows if not row["is_unknown"])[lost] >= 15, "accepted, so it has its rows"


def test_who_accepts_a_class_is_killed(source: Path, discovered: Folder, arrivals: Path, tmp_path: Path) -> None:
    job = make_job(arrivals, tmp_path / "out", discovered, reclassify=False, rediscover={"at": 15})
    arrive(source, arrivals, HELD_BACK, 0, 22)
    run_night(job)
    root = Folder(str(tmp_path / "out"))
    (candidate,) = [own for own, row in read_classes(root).items() if row["status"] == "candidate"]
    with patch.object(assign, "write_rows", side_effect=[None, KeyboardInterrupt]), pytest.raises(KeyboardInterrupt):
        edits.set_status(root, candidate, "active")
    run_night(job)
    for table in ("image_predictions", "region_predictions"):
        assert sum(row["class_id"] == candidate for row in read_table(tmp_path / "out", table)) >= 15


@pytest.mark.slow
def test_the_example_tells_its_story(tmp_path: Path) -> None:
    command = [sys.executable, str(REPO / "examples/nightly/five_nights.py"), str(tmp_path / "story")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    table = told.partition("number of images.")[2].split()
    counts = {(label, name): int(n) for label, name, n in zip(table[::3], table[1::3], table[2::3], strict=True)}
    assert counts["stain", "stain"] >= 30, told
    assert all(n >= 35 for (label, _), n in counts.items() if label != "stain"), told
