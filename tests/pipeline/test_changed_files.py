"""Files that change while a job runs, or between jobs behind the same size and time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds
import pytest
from rich.console import Console

from ancd_ray.config.job import Job
from ancd_ray.data.images import BadImage
from ancd_ray.data.sources import read_image
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.run import run
from tests.conftest import Ran

RunJob = Callable[[Job], Ran]
MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(small_job: MakeJob, demo_root: Path, tmp_path: Path) -> MakeJob:
    """Makes a job over a copy of the archive, always with the same output."""
    shutil.copytree(demo_root, tmp_path / "archive")

    def make(*overrides: str) -> Job:
        base = ("data.base=null", "discovery.method=linked", "classes.novel=4")
        return small_job(tmp_path / "out", f"data.root={tmp_path}/archive", *base, *overrides)

    return make


def _change(file: Path) -> None:
    """Changes a byte behind the image's own data, and sets the old time."""
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _quarantine(ran: Ran) -> dict[str, tuple[str, str]]:
    rows = ds.dataset(str(ran.folder.path / "quarantine")).to_table().to_pylist()
    return {"/".join(row["uri"].split("/")[-2:]): (row["stage"], row["reason"]) for row in rows}


def test_an_image_that_changes_while_the_job_runs_goes_to_quarantine(
    make_job: MakeJob, run_job: RunJob, tmp_path: Path
) -> None:
    run_job(make_job())
    tile = tmp_path / "archive" / "tile"
    _change(tile / "train" / "good" / "000.png")
    _change(tile / "test" / "crack" / "000.png")
    cached = run_job(make_job("detector.image_size=64"))  # the catalog is cached: as if it had just been written
    why = "changed while the job ran"
    assert _quarantine(cached) == {"good/000.png": ("fit_detector", why), "crack/000.png": ("detect", why)}


def test_an_image_that_changes_before_its_regions_are_cut_goes_to_quarantine(
    make_job: MakeJob, run_job: RunJob, tmp_path: Path
) -> None:
    run_job(make_job())
    _change(tmp_path / "archive" / "tile" / "test" / "crack" / "000.png")
    cached = run_job(make_job("mebin.keep=all"))
    assert _quarantine(cached) == {"crack/000.png": ("regions", "changed while the job ran")}


def _verify(job: Job) -> Ran:
    folder = run(job, None, Display("test", Console(quiet=True)), verify=True)
    return Ran(folder, "", folder.read_json("summary.json"))


def test_verify_redoes_what_rests_on_changed_images(make_job: MakeJob, run_job: RunJob, tmp_path: Path) -> None:
    first = run_job(make_job())
    other = run_job(make_job("mebin.keep=all"))

    def verify(*overrides: str) -> Ran:
        return _verify(make_job(*overrides))

    assert verify().computed == set(), "nothing has changed"
    _change(tmp_path / "archive" / "tile" / "test" / "crack" / "000.png")
    assert run_job(make_job()).computed == set(), "the stamp is the same"
    again = verify()
    assert again.computed == {step["name"] for step in first.summary["stages"]}
    assert not _quarantine(again)
    assert not other.folder.exists("run.json"), "the results of another job rest on the image, too"
    assert "regions" in run_job(make_job("mebin.keep=all")).computed


def _draw(file: Path, side: int) -> None:
    """Writes a mask of 128 x 128 pixels with a square; all of them have the same size, and the same time."""
    mask = np.zeros((128, 128), np.uint8)
    mask[:side, :side] = 255
    cv2.imwrite(str(file), mask, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    os.utime(file, (0, 0))


@pytest.mark.parametrize(
    ("detector", "changed", "redone"),
    [
        ("patchcore", "tile/ground_truth/crack/000_mask.png", {"score_maps", "score_regions", "evaluate"}),
        ("ground_truth", "tile/ground_truth/crack/000_mask.png", {"detect", "regions"}),
        ("precomputed", "maps/test/crack/000.png", {"detect", "regions"}),
    ],
)
def test_verify_redoes_what_rests_on_changed_masks_and_maps(
    make_job: MakeJob, run_job: RunJob, tmp_path: Path, detector: str, changed: str, redone: set[str]
) -> None:
    archive = tmp_path / "archive"
    for image in (archive / "tile").glob("test/*/*.png"):
        drawn = archive / "maps" / image.relative_to(archive / "tile")
        drawn.parent.mkdir(parents=True, exist_ok=True)
        _draw(drawn, 40)
    _draw(archive / changed, 30)
    settings = {"ground_truth": ["detector={name: ground_truth}"], "precomputed": ["detector={name: precomputed}"]}
    job = make_job("data.products.0.maps=maps", *settings.get(detector, []))
    run_job(job)
    assert _verify(job).computed == set(), "nothing has changed"
    _draw(archive / changed, 60)
    assert run_job(job).computed == set(), "the stamp is the same"
    again = _verify(job)
    assert redone <= again.computed
    assert "catalog" not in again.computed
    assert _verify(job).computed == set()


def test_rows_without_a_digest_are_read_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    assert read_image({"uri": str(file)}) == b"x"
    with pytest.raises(BadImage, match="changed while the job ran"):
        read_image({"uri": str(file), "digest": "0"})
