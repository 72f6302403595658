"""Jobs of `mode: classify` in MLflow: figures, model and report, once, also if the server is away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from tests.conftest import Ran
from tests.nights import make_job, run_night


@pytest.fixture
def archive(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the small archive, with a broken image."""
    shutil.copytree(demo_root, tmp_path / "archive", copy_function=shutil.copy2)
    (tmp_path / "archive/tile/test/good/broken.png").write_bytes(b"no image")
    return tmp_path / "archive"


def _find_runs(job: Job, output: Path) -> tuple[Any, Any]:
    """The run of a job and that of its product, by their tags; there are no others."""
    store = tracking.find_store(job, Folder(str(output)))
    assert store is not None
    with store.connect() as client:
        experiment = client.get_experiment_by_name("night").experiment_id
        found = client.search_runs([experiment], order_by=["attributes.start_time"])
        (parent,) = [run for run in found if "ancd_ray.run" in run.data.tags]
        (child,) = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        files = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert files == {"job.yaml", "report.html", "summary.json"}
        assert {parent.info.status, child.info.status} == {"FINISHED"}
        return parent, child


def test_figures_model_and_report_once(clustered: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    job = make_job(archive, tmp_path / "out", clustered[1].folder)
    folder, summary = run_night(job, tracked=True)
    run_night(job, tracked=True)
    result = CliRunner().invoke(main, ["track", str(folder)])
    assert "is tracked already" in result.stdout, result.output
    parent, child = _find_runs(job, tmp_path / "out")
    (product,) = summary["products"]
    counts = {"images": 26, "new": 26, "known": 0, "deleted": 0, "quarantined": 1, "regions": product["regions"]}
    for run in (parent, child):
        assert {key: run.data.metrics[key] for key in counts} == counts
    assert parent.data.metrics["seconds"] > 0
    classes = {f"classes/{name}": count for name, count in product["classes"].items()}
    assert {key: value for key, value in child.data.metrics.items() if key.startswith("classes/")} == classes
    assert sum(classes.values()) == 25
    scores = {f"image/{key}": pytest.approx(product[key]) for key in ("nmi", "ari", "f1")}
    assert {key: value for key, value in child.data.metrics.items() if key.startswith("image/")} == scores
    assert parent.data.params["models.tile"] == product["model"]
    assert parent.data.params["keep"] == "uncertain"
    assert not [key for key in parent.data.params if key.startswith("train.")], "of the model, not of the job"
    assert child.data.tags["ancd_ray.model"] == product["model"]
    assert child.data.tags["ancd_ray.model_source"] == str(clustered[1].folder)


def test_a_dead_server_ends_no_night_and_the_run_is_tracked_later(
    clustered: tuple[Job, Ran],
    archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the artifacts of a database that is named without a place for them
    output = tmp_path / "out"
    lost = make_job(archive, output, clustered[1].folder, tracking={"uri": "http://me:HUSH@127.0.0.1:9"})
    folder, _ = run_night(lost, tracked=True)
    run_night(lost, tracked=True)  # has nothing new; the summary is its own
    said = capsys.readouterr().err
    (_, line) = [line for line in said.splitlines() if "not tracked: " in line]
    assert f"later: ancd-ray track {folder}" in line
    assert "HUSH" not in said
    job = make_job(archive, output, clustered[1].folder)
    uri = str(tracking.find_store(job, Folder(str(output)))).replace("sqlite:", "sqlite+pysqlite:")
    for words in ("now tracked", "tracked already"):
        result = CliRunner().invoke(main, ["track", str(folder), "--uri", uri])
        assert result.exit_code == 0, result.output
        assert words in result.stdout
    store = tracking.TrackingStore(uri)
    with store.connect() as client:
        (parent,) = client.search_runs(
            [client.get_experiment_by_name("night").experiment_id], "attributes.run_name LIKE 'night-%'"
        )
    assert parent.data.metrics["new"] == 26, "as it was when the images were classified"
