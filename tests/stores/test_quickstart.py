"""The whole way with the archive and the output in an object store: in one process, and through Ray."""

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
    assert _predictions(run) == _predictions(local)
    again = run_job(job)
    assert again.computed == set()
    assert again.folder.uri == run.folder.uri


@pytest.mark.usefixtures("ray_of_the_tests")
def test_ray_data_and_ray_train(
    store: Store, small_job: Callable[..., Job], run_job: Callable[[Job], Ran], finished: tuple[Job, Ran]
) -> None:
    _, local = finished
    places = f"data.root={store.uri('archive/demo')}", f"output={store.uri('results/ray')}"
    run = run_job(small_job(Path("/nowhere"), *places, "resources.in_process_below=0", "train.workers=2"))
    assert not any(stage["cached"] for stage in run.summary["stages"])
    assert [row["image_id"] for row in _predictions(run)] == [row["image_id"] for row in _predictions(local)]
    assert all(sum(row["probs"]) == pytest.approx(1, abs=1e-3) for row in _predictions(run))
    assert any("/ray/" in path for path in store.list("results/ray/steps/train")), "Ray Train had it as its storage"
    assert (run.folder / "quarantine").read_table("part-00000.parquet").num_rows == 0
