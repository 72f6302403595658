"""A whole job on generated images, in this process: what it leaves behind, and what a second run computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest

from ancd_ray.config.job import Job
from ancd_ray.data.lock import Busy, lock_folder
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.status import plan_status
from ancd_ray.jobs.plan import make
from ancd_ray.jobs.run import rerender
from ancd_ray.method.metrics import cluster_scores
from ancd_ray.models.model import Model
from tests.conftest import Ran

RunJob = Callable[[Job], Ran]


def _prediction_bytes(run: Ran) -> dict[str, bytes]:
    folder = run.folder.path / "image_predictions"
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_summary_and_report(finished: tuple[Job, Ran]) -> None:
    _, run = finished
    summary = run.summary
    counted = {"images", "regions", "quarantined"}
    assert set(summary) == {"job", "results", "detectors", "class_numbers", *counted, "stages", "versions"}
    assert [(result["product"], result["level"]) for result in summary["results"]] == [
        ("tile", "image"),
        ("tile", "region"),
    ]
    for result in summary["results"]:
        predictions = ds.dataset(str(run.folder.path / f"{result['level']}_predictions")).to_table().to_pydict()
        expected = cluster_scores(np.array(predictions["label"]), np.array(predictions["cls"]))
        assert {name: result[name] for name in ("nmi", "ari", "f1", "n")} == pytest.approx(asdict(expected))
    assert summary["images"] == 25
    assert summary["regions"] >= 25
    assert summary["quarantined"] == 0
    (detector,) = summary["detectors"]
    assert 0 < detector["median_iou"] <= 1
    assert detector["median_area_ratio"] > 0
    report = run.folder.read("report.html").decode()
    assert "images score higher than" in report
    assert "Defects with the lowest scores" in report
    assert "<html" in report
    assert "tile" in report


def test_every_table_reads_with_pyarrow_alone_and_has_its_schema(finished: tuple[Job, Ran]) -> None:
    job, run = finished
    seen = set()
    for manifest in Path(job.output_root).glob("steps/*/*/manifest.json"):
        for table, parts in json.loads(manifest.read_text())["tables"].items():
            files = [str(manifest.parent / part["file"]) for part in parts]
            form = "ipc" if files[0].endswith(".arrow") else "parquet"
            dataset = ds.dataset(files, format=form)
            assert dataset.schema.equals(SCHEMAS[table], check_metadata=True), table
            assert dataset.count_rows() == sum(part["rows"] for part in parts)
            seen.add(table)
    assert seen == set(SCHEMAS) - {"quarantine"}  # nothing was set aside
    for table in ("image_predictions", "region_predictions", "metrics", "quarantine"):
        assert ds.dataset(str(run.folder.path / table)).schema.equals(SCHEMAS[table], check_metadata=True)


def test_probabilities_are_probabilities(finished: tuple[Job, Ran]) -> None:
    _, run = finished
    rows = ds.dataset(str(run.folder.path / "image_predictions")).to_table().to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows) == 25
    for row in rows:
        assert sum(row["probs"]) == pytest.approx(1, abs=1e-5)
        assert row["cls"] == max(range(len(row["probs"])), key=row["probs"].__getitem__)
        assert row["is_normal"] == (row["cls"] == 0)


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(finished: tuple[Job, Ran], run_job: RunJob) -> None:
    job, first = finished
    before = _prediction_bytes(first)
    again = run_job(job)
    assert again.folder.uri == first.folder.uri
    assert again.computed == set()
    assert _prediction_bytes(again) == before


def test_another_output_folder_gives_the_same_bytes(
    finished: tuple[Job, Ran], small_job: Callable[..., Job], run_job: RunJob, tmp_path: Path
) -> None:
    _, first = finished
    assert _prediction_bytes(run_job(small_job(tmp_path / "elsewhere"))) == _prediction_bytes(first)


@pytest.mark.parametrize(
    ("override", "computed"),
    [
        ("merge.tau_alpha=10", {"merge", "evaluate"}),
        ("train.lambda=0.5", {"train", "select_head", "classify", "merge", "evaluate"}),
        ("train.views.bank=3", {"views", "train", "select_head", "classify", "merge", "evaluate"}),
        (
            "mebin.keep=all",
            {"regions", "score_regions", "views", "encode", "train", "select_head", "classify", "merge", "evaluate"},
        ),
    ],
)
def test_a_changed_key_redoes_what_depends_on_it(
    finished: tuple[Job, Ran],
    small_job: Callable[..., Job],
    run_job: RunJob,
    tmp_path: Path,
    override: str,
    computed: set[str],
) -> None:
    job, _ = finished
    copy = tmp_path / "out"
    shutil.copytree(job.output_root, copy)
    changed = small_job(copy, override)
    plan = make(changed)
    expected = {status.step.name for status in plan_status(plan.steps, plan.root) if status.state != "cached"}
    assert run_job(changed).computed == expected == computed


def test_the_plan_says_why(finished: tuple[Job, Ran], small_job: Callable[..., Job]) -> None:
    job, _ = finished
    changed = make(small_job(Path(job.output_root), "train.lambda=0.9"))
    looks = {(status.step.product, status.step.name): status for status in plan_status(changed.steps, changed.root)}
    assert looks["tile", "detect"].state == "cached"
    assert "lambda" in looks["tile", "train"].why
    assert "classifier" in looks["tile", "classify"].why


def test_report_can_be_drawn_again(finished: tuple[Job, Ran]) -> None:
    _, run = finished
    (run.folder.path / "report.html").unlink()
    report = rerender(run.folder)
    assert report.counts.images == 25
    assert run.folder.exists("report.html")


def test_one_job_at_a_time_in_an_output_folder(finished: tuple[Job, Ran], run_job: RunJob) -> None:
    job, _ = finished
    with lock_folder(Folder(job.output_root)), pytest.raises(Busy, match="another job writes here"):
        run_job(job)


def test_tracked_once_with_curves_and_bundle(finished: tuple[Job, Ran]) -> None:
    from mlflow import MlflowClient

    job, run = finished
    client = MlflowClient(f"sqlite:///{job.output_root}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"tile", run.folder.uri.rpartition("/")[2]}
    child = runs["tile"]
    for term in ("total", "cls_u", "rep_u", "cls_l", "rep_s", "reg"):
        curve = client.get_metric_history(child.info.run_id, f"loss/{term}")
        assert len(curve) == job.train.epochs, (term, sorted(child.data.metrics))
    assert child.data.metrics["image/nmi"] == pytest.approx(run.summary["results"][0]["nmi"])
    names = {file.path for file in client.list_artifacts(child.info.run_id, "model")}
    assert names >= {"model/MLmodel", "model/requirements.txt", "model/input_example.json"}
    folder = Path(client.download_artifacts(child.info.run_id, "model/artifacts/model"))
    assert Model.load(folder).describe() == Model.load(run.folder.path / "models" / "tile").describe()
    parent = runs[run.folder.uri.rpartition("/")[2]]
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"report.html", "summary.json"}


def test_without_a_base_set_with_fresh_views(small_job: Callable[..., Job], run_job: RunJob, tmp_path: Path) -> None:
    run = run_job(small_job(tmp_path, "data.base=null", "train.views={fresh: true}", "train.epochs=1"))
    assert "views" not in run.computed
    assert all(result["nmi"] is not None for result in run.summary["results"])


def test_unlabelled_folder(small_job: Callable[..., Job], run_job: RunJob, demo_root: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_root / "tile" / "test", tmp_path / "archive" / "today")
    shutil.copytree(demo_root / "tile" / "train" / "good", tmp_path / "archive" / "normal")
    products = f"data.products=[{{name: tile, layout: folder, path: {tmp_path}/archive, normals: normal}}]"
    cheap = ("data.base=null", "discovery.method=linked")
    run = run_job(small_job(tmp_path / "out", products, "data.root=/", "classes.novel=4", *cheap))
    assert run.summary["images"] == 25
    assert all(result["nmi"] is None for result in run.summary["results"])
    assert "<html" in run.folder.read("report.html").decode()
