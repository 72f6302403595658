"""Archives as they really are: nothing of it ends a job, and every image is in the predictions or in the quarantine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.engine.context import StageError
from ancd_ray.jobs.plan import make
from tests.conftest import Ran

RunJob = Callable[[Job], Ran]
NO_TRAINING = "discovery.method=ward"  # where it is not the point


@pytest.fixture
def archive(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the generated archive, to be spoiled."""
    root = tmp_path / "archive"
    shutil.copytree(demo_root, root)
    return root


def _run(small_job: Callable[..., Job], run_job: RunJob, root: Path, *overrides: str) -> Ran:
    return run_job(small_job(root.parent / "out", f"data.root={root}", "data.base=null", "train.epochs=1", *overrides))


def _rows(run: Ran, table: str) -> dict[str, dict[str, object]]:
    rows = ds.dataset(str(run.folder.path / table)).to_table().to_pylist()
    return {"/".join(str(row["uri"]).split("/")[-2:]).removeprefix("good/"): row for row in rows}


def _accounted(run: Ran) -> None:
    predicted, set_aside = _rows(run, "image_predictions"), _rows(run, "quarantine")
    novel = [name for name, row in set_aside.items() if row["role"] == "query"]
    assert not predicted.keys() & set_aside.keys()
    assert len(predicted) + len(novel) == run.summary["images"]
    assert run.summary["quarantined"] == len(novel)


def _spoil(folder: Path) -> None:
    """Puts one of each kind of oddity into a folder of images."""
    picture = cv2.imread(str(next(folder.glob("*.png"))))
    assert picture is not None
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture")
    (folder / "größe-測試.jpg").write_bytes(jpeg)
    (folder / "twin.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    (folder / "twin.jpg").write_bytes(jpeg)
    grey = picture[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(picture).convert("P").save(folder / "palette.png")
    Image.fromarray(picture).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(picture[:1, :1]).save(folder / "dot.png")
    Image.fromarray(np.resize(picture, (9, 12000, 3))).save(folder / "line.png")


@pytest.mark.parametrize("detector", ["patchcore", "ground_truth"])
def test_odd_images(small_job: Callable[..., Job], run_job: RunJob, archive: Path, detector: str) -> None:
    _spoil(archive / "tile" / "test" / "good")
    cracks = archive / "tile" / "test" / "crack"
    shutil.copy(cracks / "000.png", cracks / "000.jpg")  # which of them does 000_mask.png belong to?
    overrides = [] if detector == "patchcore" else ["detector={name: ground_truth}", NO_TRAINING]
    run = _run(small_job, run_job, archive, *overrides)
    _accounted(run)
    set_aside = _rows(run, "quarantine")
    reasons = {name: str(row["reason"]) for name, row in set_aside.items()}
    assert set(reasons) == {"truncated.jpg", "empty.png", "text.png", "crack/000.png", "crack/000.jpg"}
    assert "0 bytes" in reasons["empty.png"]
    assert "not an image" in reasons["text.png"]
    assert "decoded" in reasons["truncated.jpg"]
    assert "same name up to the suffix" in reasons["crack/000.png"]
    assert all("\n" not in reason for reason in reasons.values())
    predicted = _rows(run, "image_predictions")
    assert {
        "größe-測試.jpg",
        "sixteen.png",
        "palette.png",
        "alpha.png",
        "dot.png",
        "line.png",
        "twin.jpg",
        "twin.png",
    } <= set(predicted)
    report = run.folder.read("report.html").decode()
    assert "0 bytes" in report


def test_odd_masks(small_job: Callable[..., Job], run_job: RunJob, archive: Path) -> None:
    masks = sorted((archive / "tile" / "ground_truth").glob("*/*.png"))
    cv2.imwrite(str(masks[0]), np.zeros((40, 40), np.uint8))  # of another size
    cv2.imwrite(str(masks[1]), np.zeros((128, 128), np.uint8))  # empty
    masks[2].write_bytes(b"broken")
    masks[3].unlink()
    run = _run(small_job, run_job, archive, "detector={name: ground_truth}", NO_TRAINING)
    _accounted(run)
    assert run.summary["quarantined"] == 4
    assert run.summary["images"] == 25
    reasons = " ".join(str(row["reason"]) for row in _rows(run, "quarantine").values())
    for said in ("40 x 40", "its mask is empty", "known format", "has no mask"):
        assert said in reasons


def test_a_missing_and_a_broken_map(small_job: Callable[..., Job], run_job: RunJob, archive: Path) -> None:
    maps = archive / "maps"
    for image in sorted((archive / "tile").glob("test/*/*.png")):
        target = maps / image.relative_to(archive / "tile").with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        mask = archive / "tile" / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        values = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) if mask.exists() else np.zeros((128, 128), np.uint8)
        np.save(target, np.asarray(values, np.float32) / 255)
    made = sorted(maps.rglob("*.npy"))
    made[0].unlink()
    np.save(made[1], np.full((128, 128), np.nan, np.float32))
    np.save(made[2], np.zeros((3, 4, 5, 6), np.float32))
    run = _run(small_job, run_job, archive, "detector={name: precomputed}", "data.products.0.maps=maps", NO_TRAINING)
    _accounted(run)
    assert run.summary["quarantined"] == 3
    reasons = [str(row["reason"]) for row in _rows(run, "quarantine").values()]
    assert any("finite" in reason for reason in reasons)
    assert any("no map" in reason or "no anomaly map" in reason for reason in reasons)


def test_all_images_are_the_same(small_job: Callable[..., Job], run_job: RunJob, archive: Path) -> None:
    images = sorted((archive / "tile" / "test").glob("*/*.png"))
    for image in images[1:]:
        shutil.copy(images[0], image)
    run = _run(small_job, run_job, archive)
    _accounted(run)
    assert run.summary["quarantined"] == 0
    assert len({row["cls"] for row in _rows(run, "image_predictions").values()}) == 1


def test_one_image_only(small_job: Callable[..., Job], run_job: RunJob, archive: Path) -> None:
    for image in sorted((archive / "tile" / "test").glob("*/*.png"))[1:]:
        image.unlink()
    with pytest.raises(JobError, match="is more than its 1 images"):
        _run(small_job, run_job, archive, "classes.novel=3")
    run = _run(small_job, run_job, archive, "classes.novel=1")
    _accounted(run)
    assert run.summary["images"] == 1


def test_nearly_everything_broken_fails_in_one_line(
    small_job: Callable[..., Job], run_job: RunJob, archive: Path
) -> None:
    for image in sorted((archive / "tile" / "test").glob("*/*.png"))[5:]:
        image.write_bytes(b"no picture")
    with pytest.raises(StageError, match=r"resources.max_quarantined") as error:
        _run(small_job, run_job, archive, "resources.max_quarantined=0.1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.products.0.path=tile/test", "data.products.0.layout=folder", "classes.novel=4"), "no normal images"),
        (("data.products.0.path=nowhere",), "no such folder"),
        (("data.products.0.layout=folder", "detector={name: ground_truth}", "classes.novel=3"), "no masks"),
        (("data.products.0.path=tile/test", "data.products.0.layout=folder"), "classes.novel=from_labels"),
        (("data.base.path=tile/test/good", "data.base.layout=folder"), "labelled"),
        (("train.batch_size=15", "train.workers=2"), "train.batch_size=15"),
        (("detector={name: precomputed}",), "maps"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    small_job: Callable[..., Job], archive: Path, overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(JobError) as error:
        make(small_job(archive.parent / "out", f"data.root={archive}", *overrides))
    assert said in str(error.value)
    assert not (archive.parent / "out").exists()
