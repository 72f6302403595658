"""Jobs that sort by clustering, that estimate the number of classes, and the bench over rows of a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ancd_ray.cli.main import bench
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.data.roles import describe_number
from ancd_ray.data.store import Folder
from ancd_ray.jobs.bench.run import as_csv, markdown, measure
from ancd_ray.jobs.bench.tables import TABLES
from ancd_ray.jobs.plan import ProductPlan, make
from tests.conftest import Ran

MakeJob = Callable[..., Job]


def test_clustering_with_an_estimated_number(small_job: MakeJob, run_job: Callable[[Job], Ran], tmp_path: Path) -> None:
    overrides = ("discovery.method=linked", "classes={novel: auto, max_classes: 6}")
    run = run_job(small_job(tmp_path, *overrides))
    assert run.computed >= {"encode", "count_classes", "cluster", "classify", "merge"}
    assert "train" not in run.computed
    assert not list((tmp_path / "steps" / "regions").glob("base-*")), "no clustering reads the base set"
    (manifest,) = (Folder(str(file)) for file in (tmp_path / "steps" / "count_classes").iterdir())
    values = manifest.read_json("manifest.json")["values"]
    assert values["numbers"] == [2, 3, 4, 5, 6]
    assert values["n_classes"] == max(zip(values["agreement"][1:], values["numbers"][1:], strict=True))[1]
    assert values["by_silhouette"] == max(zip(values["silhouette"], values["numbers"], strict=True))[1]
    assert values["low"] <= values["n_classes"] <= values["high"]
    (number,) = run.summary["class_numbers"]
    assert number == {"product": "tile", **{key: values[key] for key in ("n_classes", "low", "high", "confidence")}}
    report = run.folder.read("report.html").decode()
    assert f"{values['confidence']:.0%}".replace("%", " % of the resamples is within the range") in report
    assert "Number of classes" in report
    assert f"Clusterings agree best on {values['n_classes']}, the number that was taken" in report
    assert f"there are {describe_number(values['low'], values['high'])} classes" in report
    again = run_job(small_job(tmp_path, *overrides, "merge.rule=average"))
    assert again.computed == {"merge", "evaluate"}


def test_ablations_are_in_the_fingerprints(small_job: MakeJob, tmp_path: Path) -> None:
    def changed(override: str) -> set[str]:
        plans = (make(small_job(tmp_path)), make(small_job(tmp_path, override)))
        before, after = ({step.name: step.fingerprint for step in p.products[0].flow.steps} for p in plans)
        return {name for name in before if before[name] != after.get(name)}

    assert changed("merge.rule=score") == {"merge", "evaluate"}
    assert "regions" in changed("mebin.binarize=otsu")
    assert "detect" not in changed("mebin.crop=image")
    assert "views" in changed("backbone.mask=none")
    assert "regions" not in changed("train.correction=false")
    assert not changed("backbone.mask_layers=3"), "lite has one block"
    masks = "detector={name: ground_truth}"
    of_masks = (make(small_job(tmp_path, masks, f"mebin.binarize={how}")).products[0] for how in ("mebin", "otsu"))
    assert len({p.step_of("regions").fingerprint for p in of_masks}) == 1, "masks are not binarized"


def test_the_head_that_serves_is_a_choice_of_its_own(
    small_job: MakeJob, run_job: Callable[[Job], Ran], tmp_path: Path
) -> None:
    run_job(small_job(tmp_path))
    other = run_job(small_job(tmp_path, "train.head=loss"))
    assert other.computed == {"select_head", "classify", "merge", "evaluate"}
    found = [
        Folder(str(f)).read_json("manifest.json")["values"] for f in (tmp_path / "steps" / "select_head").iterdir()
    ]
    by_loss, by_silhouette = sorted(found, key=len)
    (model,) = (Folder(str(f)).read_json("manifest.json")["values"] for f in (tmp_path / "steps" / "train").iterdir())
    assert "head_silhouettes" not in by_loss
    assert by_loss["served_head"] == int(np.argmin(model["head_losses"]))
    silhouettes = by_silhouette["head_silhouettes"]
    assert len(silhouettes) == 4
    assert silhouettes[by_silhouette["served_head"]] == max(silhouettes)


def test_trained_methods_differ_in_what_they_learn_from(small_job: MakeJob, tmp_path: Path) -> None:
    def plan(*overrides: str) -> ProductPlan:
        return make(small_job(tmp_path, *overrides)).products[0]

    methods = ("anomalyncd", "uno", "scan")
    ours, uno, scan = (plan(f"discovery.method={method}", "train.start=random") for method in methods)
    assert len({each.step_of("views").fingerprint for each in (ours, uno, scan)}) == 1, "one view bank for all"
    assert len({each.step_of("trained").fingerprint for each in (ours, uno, scan)}) == 3
    assert [step.name for step in uno.steps] == [step.name for step in ours.steps]
    started = plan("discovery.method=anomalyncd")
    assert started.step_of("views").fingerprint != ours.step_of("views").fingerprint, "class tokens less the ring"
    assert set(started.step_of("trained").inputs) - set(ours.step_of("trained").inputs) >= {"features", "maps"}
    assert plan("discovery.method=uno").step_of("trained").fingerprint == uno.step_of("trained").fingerprint
    assert scan.base is not None
    assert not scan.base.steps, "deep clustering sees no base set"
    assert set(scan.step_of("trained").inputs) == {"views"}
    assert scan.step_of("trained").stage.classes.base_classes == ()  # type: ignore[attr-defined]
    constants = plan("discovery.method=uno", "train.lambda=0.5", "train.mu=1", "train.correction=false")
    assert constants.step_of("trained").fingerprint == uno.step_of("trained").fingerprint, "they are published ones"


def test_a_published_method_leaves_classes(small_job: MakeJob, run_job: Callable[[Job], Ran], tmp_path: Path) -> None:
    run = run_job(small_job(tmp_path, "discovery.method=gcd", "train.heads=3", "train.head=loss"))
    assert run.computed >= {"views", "train", "select_head", "classify", "merge"}
    (trained,) = (Folder(str(file)) for file in (tmp_path / "steps" / "train").iterdir())
    losses = trained.read_json("manifest.json")["values"]["head_losses"]
    assert len(losses) == 3
    assert min(losses) > 0, "the inertia of each start of k-means"


def test_every_table_has_a_command() -> None:
    (number,) = (each for each in bench.params if each.name == "number")
    assert list(number.type.choices) == list(TABLES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", ["I", "II"])
def test_rows_of_methods_are_jobs(small_job: MakeJob, tmp_path: Path, number: str) -> None:
    jobs = [small_job(tmp_path, *row.overrides) for row in TABLES[number].rows]
    methods = [(job.discovery.method, job.train.start) for job in jobs]
    assert len(set(methods)) == len(methods)


@pytest.mark.slow
def test_bench_runs_the_rows_of_a_table(small_job: MakeJob, run_job: Callable[[Job], Ran], tmp_path: Path) -> None:
    said: list[str] = []
    base = ("discovery.method=ward", "classes={novel: auto, max_classes: 5}")
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
    assert all(re.fullmatch(r"(\d|between \d and \d) classes, \d taken", one.note) for one in measured), "a range"
    text = markdown("VII", measured, "ancd-ray bench")
    assert "| eq. 10 | tile | image | 1 |" in text
    assert ".268 / .228 / .509" in text
    table = list(csv.DictReader(as_csv(measured).splitlines()))
    assert {row["row"] for row in table} == set(rows)
    assert float(table[0]["f1"]) > 0


@pytest.mark.slow
def test_bench_says_where_a_row_changes_nothing(
    small_job: MakeJob, run_job: Callable[[Job], Ran], tmp_path: Path
) -> None:
    job = ("discovery.method=ward", "detector={name: ground_truth}")
    measured = measure(
        "VIII",
        1,
        lambda more: small_job(tmp_path, *job, *more),
        lambda job: run_job(job).folder,
        lambda _: None,
    )
    notes = {one.row.name: one.note for one in measured if one.level == "image"}
    assert notes == {"without": "", "with": "the same run as without"}, "nothing is trained"
    assert "(the same run as without)" in markdown("VIII", measured, "ancd-ray bench")


def test_a_row_that_cannot_run_stays_with_its_reason(tmp_path: Path) -> None:
    def refuse(_: Job) -> Folder:
        raise JobError("backbone.mask: all needs a transformer")

    measured = measure("IV", 2, lambda _: None, refuse, lambda _: None)  # type: ignore[arg-type,return-value]
    assert [one.note for one in measured] == ["backbone.mask: all needs a transformer"] * 4
    assert "not run: backbone.mask" in markdown("IV", measured, "ancd-ray bench")
