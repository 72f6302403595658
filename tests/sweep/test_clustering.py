"""Sweeps whose trials cluster frozen features instead of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ancd_ray.config.job import Job
from ancd_ray.data.store import Folder


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_the_tests")
def test_a_sweep_over_clusterings(
    small_sweep: Callable[..., Job], run_sweep: Callable[[Job], tuple[Folder, str]], tmp_path: Path
) -> None:
    parameters = {"backbone.color_normalization": {"grid": ["kept", "centred"]}, "merge.tau_alpha": {"grid": [10, 100]}}
    auto = ("discovery.method=linked", "classes={novel: auto, max_classes: 5}")
    job = small_sweep(tmp_path, *auto, products=["tile"], parameters=parameters, register_best=True)
    folder, _ = run_sweep(job)
    rows = pq.read_table(folder.path / "sweep.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["done"] * 4
    assert all(2 <= row["classes_low"] <= row["classes_high"] <= 5 for row in rows)
    assert all(row["nmi"] is not None and row["unsupervised"] is not None for row in rows)

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{job.output_root}/mlflow.db")
    (version,) = client.search_model_versions("name = 'small.tile'")
    assert client.get_model_version_by_alias("small.tile", "champion").version == version.version
