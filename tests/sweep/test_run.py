"""A whole sweep: killed, continued, its table, report, MLflow runs, and the job file of its best settings."""

from __future__ import annotations

import csv
import io
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved, load, validate
from ancd_ray.data.store import Folder
from ancd_ray.discovery.criterion import mean_silhouette
from ancd_ray.discovery.features.region_features import read_comparison_features
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.status import plan_status
from ancd_ray.jobs.plan import make
from ancd_ray.jobs.sweep.apply import apply
from ancd_ray.jobs.track import track
from ancd_ray.method.merging import merge_images
from ancd_ray.method.metrics import cluster_scores
from tests.conftest import REPO, Ran

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SweepOf = Callable[..., Job]
RunSweep = Callable[[Job], tuple[Folder, str]]


@dataclass(frozen=True)
class Swept:
    """A sweep that was killed after its first trial, and run again."""

    job: Job
    folder: Folder


@pytest.fixture(scope="module")
def swept(
    small_sweep: SweepOf, run_sweep: RunSweep, ray_of_the_tests: None, tmp_path_factory: pytest.TempPathFactory
) -> Swept:
    root = tmp_path_factory.mktemp("sweep")
    tile = "layout: mvtec, path: tile"
    few = f"{{name: few, {tile}, exclude: [good, hole, scratch, stain]}}"  # five images, six regions
    products = f"data.products=[{{name: tile, {tile}}}, {{name: other, {tile}, exclude: [crack]}}, {few}]"
    job = small_sweep(root / "out", products, register_best=True)
    file = root / "job.yaml"
    file.write_text(dump_resolved(job))
    command = [sys.executable, "-m", "tests.sweep.killed", "1", str(file)]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    done = {path: path.stat().st_mtime_ns for path in Path(job.output_root).glob("steps/*/*/manifest.json")}
    assert 0 < sum("/train/" in str(path) for path in done) < 4
    folder, _ = run_sweep(job)
    assert {path: path.stat().st_mtime_ns for path in done} == done, "nothing that was done is done again"
    return Swept(job, folder)


def _recomputed(job: Job, product: str, lam: float, tau_alpha: float) -> dict[str, float]:
    """The figures of a setting at image level, from the tables of the ordinary job with that setting."""
    plan = make(validate(yaml.safe_load(dump_resolved(job)), ["sweep=null", f"train.lambda={lam}"]))
    (made,) = (p for p in plan.products if p.name == product)

    def find(role: str) -> Table:
        output = Output.find(made.step_of(role).folder(plan.root))
        assert output is not None
        return Table(output, role)

    regions = find("region_predictions").read().to_pydict()
    _, first, image = np.unique(regions["image_id"], return_index=True, return_inverse=True)
    merged = partial(merge_images, image, areas_N=np.array(regions["area"]), tau_alpha=tau_alpha)
    cls = merged(np.array(regions["probs"])).argmax(axis=1)
    scores = cluster_scores(np.array(regions["label"])[first], cls)
    silhouette = mean_silhouette(merged(read_comparison_features(find("features"))), cls)
    return {"nmi": scores.nmi, "ari": scores.ari, "f1": scores.f1, "unsupervised": silhouette}


def test_one_row_for_every_setting(swept: Swept) -> None:
    table = pq.read_table(swept.folder.path / "sweep.parquet")
    rows = table.to_pylist()
    figures = [row for row in rows if row["status"] == "done"]
    assert len(figures) == 2 * 2 * 3
    assert {(row["product"], row["train.lambda"], row["merge.tau_alpha"]) for row in figures} == {
        (product, lam, tau) for product in ("tile", "other") for lam in (0.1, 0.3) for tau in (10, 50, 100)
    }
    for row in figures:
        expected = _recomputed(swept.job, row["product"], row["train.lambda"], row["merge.tau_alpha"])
        assert {name: row[name] for name in expected} == pytest.approx(expected)
    text = list(csv.reader(io.StringIO((swept.folder.path / "sweep.csv").read_text())))
    assert text[0] == table.column_names
    assert len(text) == len(rows) + 1


def test_a_product_that_cannot_be_trained_is_a_row_with_its_reason(swept: Swept) -> None:
    rows = pq.read_table(swept.folder.path / "sweep.parquet").to_pylist()
    lost = [row for row in rows if row["status"] == "failed"]
    assert {row["product"] for row in lost} == {"few"}
    assert all("has 6 regions" in row["reason"] and row["nmi"] is None for row in lost)
    assert "has 6 regions" in (swept.folder.path / "report.html").read_text()


def test_the_best_settings_are_a_job_that_trains_nothing_again(
    swept: Swept, run_job: Callable[[Job], Ran], tmp_path: Path
) -> None:
    assert apply(swept.folder, tmp_path / "best.yaml") == ["few"]
    job = load(tmp_path / "best.yaml")
    assert job.sweep is None
    assert [set(product.overrides) for product in job.data.products] == [
        {"train.lambda", "merge.tau_alpha"},
        {"train.lambda", "merge.tau_alpha"},
        set(),
    ]
    job = job.model_copy(update={"data": job.data.model_copy(update={"products": job.data.products[:2]})})
    plan = make(job)
    todo = {status.step.name for status in plan_status(plan.steps, plan.root) if status.state != "cached"}
    assert todo <= {"merge", "evaluate"}
    results = {(r["product"], r["level"]): r["nmi"] for r in run_job(job).summary["results"]}
    for product in swept.folder.read_json("summary.json")["products"][:2]:
        assert results[product["product"], "image"] == pytest.approx(product["figures"]["nmi"])


def test_runs_and_models_in_mlflow(swept: Swept, run_sweep: RunSweep) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{swept.job.output_root}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    name = swept.folder.uri.rpartition("/")[2]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == name]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    good = [run for run in children if run.data.tags["status"] == "done"]
    assert len(good) == 4
    for run in good:
        assert {"train.lambda", "merge.tau_alpha"} <= set(run.data.params)
        assert {"image/nmi", "image/unsupervised", "loss/total"} <= set(run.data.metrics)
        assert len(client.get_metric_history(run.info.run_id, "loss/total")) == swept.job.train.epochs
    assert {run.info.status for run in children if run not in good} == {"FAILED"}
    for product in ("tile", "other"):
        version = client.get_model_version_by_alias(f"small.{product}", "champion")
        assert version.run_id in {run.info.run_id for run in good}
    run_sweep(swept.job)
    assert len(client.search_runs([experiment.experiment_id])) == len(runs), "a sweep is tracked once"


def test_tracked_later_from_its_folder(swept: Swept, tmp_path: Path) -> None:
    assert not track(swept.folder)[1], "it is tracked already"
    moved = tmp_path / "out"
    shutil.copytree(swept.job.output_root, moved, ignore=shutil.ignore_patterns("mlflow*"))
    folder = Folder(str(moved / "runs" / swept.folder.path.name))
    place, is_new = track(folder)
    assert is_new
    assert place == f"sqlite:///{moved}/mlflow.db"
    assert not track(folder)[1]


def test_nothing_is_left_behind(swept: Swept) -> None:
    assert {path.name for path in swept.folder.path.iterdir()} == {
        "job.yaml",
        "report.html",
        "summary.json",
        "sweep.csv",
        "sweep.parquet",
        "trials",
    }
    assert not list(Path(swept.job.output_root).rglob("*.tmp"))
    assert not list(Path(swept.job.output_root).glob("steps/train/*/checkpoints/*"))
