"""SIGKILL in every step, one after the other over the same output: the last run completes as if nothing had been."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.jobs.plan import make
from tests.conftest import REPO, Ran


@pytest.mark.slow
def test_killed_in_every_step(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], finished: tuple[Job, Ran], tmp_path: Path
) -> None:
    _, undisturbed = finished
    job = small_job(tmp_path / "out", "train.checkpoint_every=1")
    file = tmp_path / "job.yaml"
    file.write_text(dump_resolved(job))
    steps = list(dict.fromkeys(step.name for step in make(job).steps))
    command = [sys.executable, "-m", "tests.pipeline.killed", str(file), *steps, "report"]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr
    run = run_job(job)
    assert run.computed == set(), "every step was finished by the run after the one that was killed in it"
    for key in ("images", "regions", "quarantined", "results"):
        assert run.summary[key] == undisturbed.summary[key]
    for table, key in (("image_predictions", "image_id"), ("region_predictions", "region_id")):
        rows = ds.dataset(str(run.folder.path / table)).to_table()
        assert len(set(rows.column(key).to_pylist())) == rows.num_rows
        assert rows.equals(ds.dataset(str(undisturbed.folder.path / table)).to_table())
