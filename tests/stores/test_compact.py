"""`ancd-ray compact` over an object store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from tests.conftest import Ran
from tests.nights import TABLES, make_job, read_published, run_night
from tests.stores.server import KEY, SECRET, Store

pytestmark = pytest.mark.slow


def test_few_objects_and_the_same_rows(
    finished: tuple[Job, Ran], demo_root: Path, store: Store, tmp_path: Path
) -> None:
    archive, place = tmp_path / "archive", "results/compact"
    shutil.copytree(demo_root, archive)
    job = make_job(archive, store.uri(place), finished[1].folder)
    run_night(job)
    (archive / "tile/test/good/broken.png").write_bytes(b"no image")
    shutil.copy(archive / "tile/test/good/000.png", archive / "tile/test/good/new.png")
    run_night(job)
    options = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    rows = {table: read_published(f"s3://{place}", table, options) for table in TABLES}
    objects, runner = store.list(place), CliRunner()
    would = runner.invoke(main, ["compact", store.uri(place), "--older-than", "0h", "--dry-run"])
    assert store.list(place) == objects
    store.upload_text(f"{place}/archive/quarantine/product=tile/part-of-a-killed-writer.parquet", "x")
    swept = runner.invoke(main, ["clean", store.uri(place)])
    assert [line.split()[-1] for line in swept.stdout.splitlines()[:-1]] == [
        "archive/quarantine/product=tile/part-of-a-killed-writer.parquet"
    ]
    done = runner.invoke(main, ["compact", store.uri(place), "--older-than", "0h"])
    assert done.exit_code == 0, done.output
    assert [line.split(" bytes")[0] for line in done.stdout.splitlines()] == [
        line.split(" bytes")[0] for line in would.stdout.splitlines()
    ]
    data = [path for path in store.list(f"{place}/archive") if "/product=" in path]
    assert len(data) == len(TABLES)
    assert {table: read_published(f"s3://{place}", table, options) for table in TABLES} == rows
    assert "HuSh" not in done.output + would.output
    nowhere = runner.invoke(main, ["compact", store.uri("results/nowhere")])
    assert nowhere.stderr.startswith("error: s3://results/nowhere: no published tables in archive/")
