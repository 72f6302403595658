"""Bad input of `mode: classify`: images, models, partitions and published tables that are not as they should be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ancd_ray.config.job import Job
from ancd_ray.engine.context import StageError
from tests.conftest import Ran
from tests.nights import make_job, read_published, run_night


@pytest.fixture
def archive(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the small archive, to be changed."""
    shutil.copytree(demo_root, tmp_path / "archive", copy_function=shutil.copy2)
    return tmp_path / "archive"


def test_a_night_of_one_broken_image_ends_no_job(finished: tuple[Job, Ran], archive: Path, tmp_path: Path) -> None:
    job = make_job(archive, tmp_path / "out", finished[1].folder)
    run_night(job)
    (archive / "tile/test/good/new.png").write_bytes(b"no image")
    _, summary = run_night(job)
    assert (summary["images"], summary["new"], summary["quarantined"]) == (26, 1, 1)
    assert len(read_published(tmp_path / "out", "quarantine")) == 1


def test_an_archive_that_is_mostly_broken_is_not_published(
    finished: tuple[Job, Ran], archive: Path, tmp_path: Path
) -> None:
    job = make_job(archive, tmp_path / "out", finished[1].folder)
    run_night(job)
    rows = read_published(tmp_path / "out", "image_predictions")
    for path in (archive / "tile/test").glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(StageError) as error:
        run_night(job)
    assert "25 of 25 images of product tile cannot be used, more than resources.max_quarantined=0.5" in str(error.value)
    assert "\n" not in str(error.value)
    assert read_published(tmp_path / "out", "image_predictions") == rows
    _, summary = run_night(make_job(archive, tmp_path / "out", finished[1].folder, resources={"max_quarantined": 1}))
    assert summary["quarantined"] == 25
