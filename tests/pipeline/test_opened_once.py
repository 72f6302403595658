"""A pass with a model opens each file of the archive once, as the kernel sees it."""

from __future__ import annotations

import importlib
import shutil
from collections import Counter
from pathlib import Path

import pytest

from ancd_ray.config.job import Job
from tests.conftest import REPO, Ran
from tests.nights import make_job, run_night


@pytest.mark.parametrize("model", ["finished", "clustered"])
def test_files_are_opened_once(
    model: str, demo_root: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a detector that looks at images, and with one that reads masks, which are files too."""
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    count_opens = importlib.import_module("opens").count_opens
    made: tuple[Job, Ran] = request.getfixturevalue(model)
    archive = tmp_path / "archive"
    shutil.copytree(demo_root, archive)
    job = make_job(archive, tmp_path / "out", made[1].folder)
    files = set((archive / "tile/test").rglob("*.png"))
    if model == "clustered":
        files |= set((archive / "tile/ground_truth").rglob("*.png"))
    for opened in (files, set()):  # the second night has nothing to read
        with count_opens(archive) as counts:
            run_night(job)
        assert dict(counts) == dict.fromkeys(opened, 1), Counter(counts.values())
