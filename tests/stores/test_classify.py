"""A job of `mode: classify` whose archive and output are in an object store."""

from __future__ import annotations

import pytest
from deltalake import DeltaTable

from ancd_ray.config.job import Job
from ancd_ray.config.load import validate
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.classify.run import run
from tests.conftest import Ran
from tests.stores.server import KEY, SECRET, Store

pytestmark = pytest.mark.slow


def test_published_tables_of_a_store(finished: tuple[Job, Ran], store: Store) -> None:
    document = {
        "name": "night",
        "mode": "classify",
        "model": str(finished[1].folder),
        "data": {
            "root": store.uri("archive/demo"),
            "products": [{"name": "tile", "layout": "mvtec", "path": "tile"}],
        },
        "resources": {"in_process_below": 100_000},
        "output": store.uri("results/night"),
    }
    for _ in range(2):  # the second one has nothing to do
        display = Display("test")
        with display.running():
            folder = run(validate(document), None, display)
    options = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    table = DeltaTable("s3://results/night/archive/image_predictions", storage_options=options)
    rows = table.to_pyarrow_table()
    assert rows.num_rows == 25
    assert table.version() == 1
    assert folder.read_json("summary.json")["images"] == 25
