"""Which images are normal: by a key of the job, and by the scores of images that are known to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds
import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.data.roles import Classes
from ancd_ray.discovery.normal_curve import NormalCurve
from ancd_ray.jobs.plan import make
from tests.conftest import Ran


@pytest.fixture(scope="module")
def belt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive without labels whose images all show a defect, faint or not, beside some normal images."""
    root, rng = tmp_path_factory.mktemp("belt"), np.random.default_rng(0)
    for name in [*(f"belt/normal/{i}.png" for i in range(12)), *(f"belt/{i}.png" for i in range(20))]:
        pixels = cv2.GaussianBlur(rng.normal(128, 30, (128, 128)), (0, 0), 2)
        if "normal" not in name:
            x, y = rng.integers(20, 108, 2)
            faint = int(Path(name).stem) % 2
            cv2.circle(pixels, (int(x), int(y)), 6 if faint else 9, 220 if faint else 255, -1)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), pixels.clip(0, 255).astype(np.uint8))
    return root


def _job(small_job: Callable[..., Job], output: Path, belt: Path, *overrides: str) -> Job:
    product = "data.products=[{name: belt, layout: folder, path: belt, normals: normal}]"
    fixed = (f"data.root={belt}", product, "data.base=null", "discovery.method=linked")
    return small_job(output, *fixed, *overrides)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("classes.novel=5",), Classes((), 5, True)),
        (("classes.novel=5", "classes.normal=no"), Classes((), 5, False)),
        (("classes.novel=5", "classes.normal=off"), Classes((), 5, False)),
        (("classes.novel=5", "data.products.0.exclude=[good]"), Classes((), 5, False)),
        (("classes.novel=5", "data.products.0.exclude=[good]", "classes.normal=yes"), Classes((), 5, True)),
    ],
)
def test_the_key_decides_without_labels(
    small_job: Callable[..., Job], tmp_path: Path, belt: Path, overrides: tuple[str, ...], expected: Classes
) -> None:
    plan = make(_job(small_job, tmp_path, belt, *overrides)).products[0]
    assert plan.classes == expected
    assert ("none of them normal" in plan.describe_classes()) == (not expected.has_normal)


@pytest.mark.parametrize(("normal", "n_novel"), [("auto", 5), ("yes", 5), ("no", 5)])
def test_labels_count_the_classes(small_job: Callable[..., Job], tmp_path: Path, normal: str, n_novel: int) -> None:
    job = small_job(tmp_path, f"classes.normal={normal}", "data.base=null")
    assert make(job).products[0].classes == Classes((), n_novel, normal != "no")
    without = ("data.base=null", "detector={name: ground_truth}", "data.products.0.exclude=[good]")
    job = small_job(tmp_path, f"classes.normal={normal}", *without)
    assert make(job).products[0].classes == Classes((), 5 if normal == "yes" else 4, normal == "yes")


def test_a_set_without_normal_images_has_none(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], tmp_path: Path, belt: Path
) -> None:
    """By the scores of the images alone, the weaker defects would be called normal."""
    job = _job(small_job, tmp_path / "out", belt, "classes.novel=3")
    run = run_job(job)
    rows = ds.dataset(str(run.folder.path / "image_predictions")).to_table(columns=["is_normal"]).to_pylist()
    assert len(rows) == 20
    assert not sum(row["is_normal"] for row in rows)
    plan = make(job)
    maps = plan.products[0].step_of("maps").folder(plan.root)
    scores = ds.dataset(str(maps.path / "maps")).to_table(columns=["score"]).column("score").to_numpy()
    assert (NormalCurve.fit(scores).predict(scores) > 0.5).sum() >= 5


@pytest.mark.parametrize("method", ["linked", "anomalyncd", "kmeans"])
def test_more_classes_than_images_are_refused_at_plan(
    small_job: Callable[..., Job], tmp_path: Path, belt: Path, method: str
) -> None:
    with pytest.raises(JobError, match=r"classes\.novel=21 is more than its 20 images"):
        make(_job(small_job, tmp_path, belt, f"discovery.method={method}", "classes.novel=21"))
