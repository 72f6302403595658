"""The whole way with the archive and the output in an object store, in one process; see test_commands.py for Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ancd_ray.config.job import Job
from tests.conftest import Ran
from tests.stores.server import Store

pytestmark = pytest.mark.slow


def _predictions(run: Ran) -> list[dict[str, Any]]:
    folder = run.folder / "image_predictions"
    return [row for name in folder.names() for row in folder.read_table(name).to_pylist()]


def test_one_process_gives_what_it_gives_on_a_disk(
    store: Store, small_job: Callable[..., Job], run_job: Callable[[Job], Ran], finished: tuple[Job, Ran]
) -> None:
    _, local = finished
    job = small_job(Path("/nowhere"), f"data.root={store.uri('archive/demo')}", f"output={store.uri('results/alone')}")
    run = run_job(job)
    assert run.folder.uri.startswith("s3://results/alone/runs/small-")
    assert not any(stage["cached"] for stage in run.summary["stages"])
    assert [{**row, "uri": ""} for row in _predictions(run)] == [{**row, "uri": ""} for row in _predictions(local)]
    again = run_job(job)
    assert again.computed == set()
    assert again.folder.uri == run.folder.uri
