"""Jobs that sort by clustering, that estimate the number of classes, and the bench over rows of a table."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from ancd_ray.bench import as_csv, markdown, measure
from ancd_ray.bench_tables import TABLES
from ancd_ray.config import Job
from ancd_ray.jobfile import JobError
from ancd_ray.plan import make
from ancd_ray.store import Folder
from tests.conftest import Ran

MakeJob = Callable[..., Job]


def test_clustering_with_an_estimated_number(small_job: MakeJob, run_job: Callable[[Job], Ran], tmp_path: Path) -> None:
    overrides = ("discovery.method=linked", "classes={novel: auto, at_most: 6}")
    run = run_job(small_job(tmp_path, *overrides))
    assert run.computed >= {"describe", "count_classes", "cluster", "merge"}
    assert "train" not in run.computed
    assert not list((tmp_path / "steps" / "regions").glob("base-*")), "no clustering reads the base set"
    (manifest,) = (Folder(str(file)) for file in (tmp_path / "steps" / "count_classes").iterdir())
    values = manifest.read_json("manifest.json")["values"]
    assert 2 <= values["n_classes"] <= 6
    assert len(values["silhouette"]) == len(values["numbers"]) == 5
    assert 0 <= values["confidence"] <= 1
    report = run.folder.read("report.html").decode()
    assert "Number of classes" in report
    assert f"{values['n_classes']} classes have the best silhouette" in report
    again = run_job(small_job(tmp_path, *overrides, "merge.rule=average"))
    assert again.computed == {"merge", "evaluate"}


def test_ablations_are_in_the_fingerprints(small_job: MakeJob, tmp_path: Path) -> None:
    def changed(override: str) -> set[str]:
        plans = (make(small_job(tmp_path)), make(small_job(tmp_path, override)))
        before, after = ({step.name: step.fingerprint for step in p.products[0].steps.values()} for p in plans)
        return {name for name in before if before[name] != after.get(name)}

    assert changed("merge.rule=score") == {"merge", "evaluate"}
    assert "regions" in changed("mebin.binarize=otsu")
    assert "detect" not in changed("mebin.crop=image")
    assert "views" in changed("backbone.mask=none")
    assert "regions" not in changed("train.correction=false")


@pytest.mark.slow
def test_bench_runs_the_rows_of_a_table(small_job: MakeJob, run_job: Callable[[Job], Ran], tmp_path: Path) -> None:
    said: list[str] = []
    base = ("discovery.method=ward",)
    measured = measure(
        "VII",
        1,
        lambda more: small_job(tmp_path, *base, *more),
        lambda job: run_job(job).folder,
        said.append,
    )
    rows = [row.name for row in TABLES["VII"].rows]
    assert [one.row.name for one in measured if one.level == "image"] == rows
    assert all(one.mean is not None for one in measured)
    text = markdown("VII", measured, "ancd-ray bench")
    assert "| eq. 10 | tile | image | 1 |" in text
    assert ".268 / .228 / .509" in text
    table = list(csv.DictReader(as_csv(measured).splitlines()))
    assert {row["row"] for row in table} == set(rows)
    assert float(table[0]["f1"]) > 0


def test_a_row_that_cannot_run_stays_with_its_reason(tmp_path: Path) -> None:
    def refuse(_: Job) -> Folder:
        raise JobError("backbone.mask: all needs a transformer")

    measured = measure("IV", 2, lambda _: None, refuse, lambda _: None)  # type: ignore[arg-type,return-value]
    assert [one.note for one in measured] == ["backbone.mask: all needs a transformer"] * 4
    assert "not run: backbone.mask" in markdown("IV", measured, "ancd-ray bench")
