"""Archives as people have them, end to end: one job has a product for each, and each test looks at one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset as ds
import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import validate
from tests import archives
from tests.archives import CASES, EACH, GOOD, KINDS, QUERIES
from tests.conftest import Ran

pytestmark = pytest.mark.slow

LABELS = dict.fromkeys(KINDS, EACH) | {"good": GOOD}


class Found:
    """What the job has found in one product."""

    def __init__(self, run: Ran, product: str) -> None:
        self._run, self._product = run, product
        self.predictions = self._read("image_predictions")
        self.quarantine = self._read("quarantine")
        self.metrics = {(row["level"], row["name"]): row["value"] for row in self._read("metrics")}
        assert not {row["image_id"] for row in self.predictions} & {row["image_id"] for row in self.quarantine}

    def _read(self, table: str) -> list[dict[str, Any]]:
        rows = ds.dataset(str(self._run.folder.path / table)).to_table().to_pylist()
        return [row for row in rows if row["product"] == self._product]

    @property
    def labels(self) -> Counter[str]:
        """Labels of the predictions."""
        return Counter(row["label"] for row in self.predictions)

    @property
    def nmi(self) -> float:
        """How well the classes fit the labels of the images."""
        return float(self.metrics["image", "nmi"])

    @property
    def regions(self) -> list[dict[str, Any]]:
        """The regions, with their crops decoded in gray."""
        (step,) = Path(self._run.folder.path).parents[1].glob(f"steps/regions/{self._product}-*")
        rows = ds.dataset(str(step / "regions")).to_table().to_pylist()
        return [row | {key: _decode(row[key]) for key in ("image", "mask")} for row in rows]


def _decode(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


@pytest.fixture(scope="module")
def find(run_job: Callable[[Job], Ran], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Found]:
    """Looks at one product of a job over all archives, whose root is given as a URI."""
    root = tmp_path_factory.mktemp("an archive #1")
    products = []
    for name, (write, keys) in CASES.items():
        (root / name).mkdir()
        write(root / name)
        products.append({"name": name, "path": name, **keys})
    job = validate(
        {
            "name": "archives",
            "data": {"root": f"file://{root}", "products": products},
            "detector": {"name": "patchcore", "image_size": 96, "coreset": 200, "candidates": 1000},
            "discovery": {"method": "linked"},
            "resources": {"in_process_below": 100_000},
            "output": str(root.parent / "out"),
        },
        (),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ancd_ray.jobs.tracking.find_store", lambda *_: None)  # a model a product takes half of the time
        run = run_job(job)
    return lambda product: Found(run, product)


def test_masks_with_numbers_of_classes(find: Callable[[str], Found]) -> None:
    found = find("numbered")
    assert not found.quarantine, "none of the masks is empty"
    assert found.labels == LABELS
    drawn = sum(int(picture.mask.sum()) for picture in archives.pictures())
    assert sum(row["area"] for row in found.regions if row["label"] != "good") >= drawn
    assert found.nmi > 0.8


def test_other_names_of_masks(find: Callable[[str], Found]) -> None:
    found = find("names")
    (lost,) = found.quarantine
    assert lost["uri"].endswith("test/hole/002.png")
    assert lost["reason"] == "is labeled 'hole', but has no mask", "not taken for free of defects"
    assert found.labels == {**LABELS, "hole": EACH - 1}


def test_turned_images_fit_their_upright_masks(find: Callable[[str], Found]) -> None:
    found = find("turned")
    assert not found.quarantine
    for row in found.regions:
        if row["label"] == "hole":
            inside, outside = row["image"][row["mask"] > 0], row["image"][row["mask"] == 0]
            assert inside.mean() < outside[outside > 0].mean() - 40


def test_folders_by_date(find: Callable[[str], Found]) -> None:
    found = find("dated")
    assert not found.quarantine
    assert found.labels == LABELS
    assert sum("2024-05-02" in row["uri"] for row in found.predictions) == 2


def test_leftovers_are_no_class(find: Callable[[str], Found]) -> None:
    found = find("leftovers")
    assert not found.quarantine
    assert found.labels == LABELS


def test_a_name_that_is_not_utf8(find: Callable[[str], Found]) -> None:
    found = find("latin")
    (row,) = found.quarantine
    assert row["uri"].endswith("test/hole/stra\\xdfe.png")
    assert "not UTF-8" in row["reason"]
    assert found.labels == {**LABELS, "hole": EACH - 1}


def test_twelve_bits_are_their_twin_of_eight(find: Callable[[str], Found]) -> None:
    deep, twin = find("twelve"), find("eight")
    assert len(deep.predictions) == QUERIES
    for key in (("image", "detection_auroc"), ("pixel", "auroc"), ("pixel", "aupro")):
        assert deep.metrics[key] == pytest.approx(twin.metrics[key])
    crops, crops_of_twin = (sorted(row["image"].tobytes() for row in found.regions) for found in (deep, twin))
    assert crops == crops_of_twin


def test_names_that_mean_something_in_uris(find: Callable[[str], Found]) -> None:
    found = find("signs")
    assert not found.quarantine
    expected = {f"{archives.SIGNS[i % len(archives.SIGNS)].format(i)}.png" for i in range(QUERIES)}
    assert {row["uri"].rpartition("/")[2] for row in found.predictions} == expected


def test_crops_of_line_scans_are_a_few_times_the_defect(find: Callable[[str], Found]) -> None:
    found = find("scans")
    assert len(found.predictions) == 6
    assert all(0 < row["x1"] - row["x0"] <= 8 * archives.PIT for row in found.regions)
    assert all(row["image"][row["mask"] > 0].mean() < 60 for row in found.regions)
    assert found.nmi == pytest.approx(1)


@pytest.mark.parametrize("product", ["excel", "windows", "padded"])
def test_lists_of_spreadsheets(find: Callable[[str], Found], product: str) -> None:
    found = find(product)
    assert not found.quarantine
    assert found.labels == LABELS
    assert sum(row["score"] > 0 for row in found.regions if row["label"] != "good") >= EACH * len(KINDS)


def test_polygons_of_coco(find: Callable[[str], Found]) -> None:
    found = find("coco")
    assert not found.quarantine
    assert found.labels == LABELS
    hole = [row for row in found.regions if row["label"] == "hole"]
    assert all(row["mask"].any() for row in hole)


@pytest.mark.parametrize(("product", "label"), [("visa", "anomaly"), ("btad", "ko")])
def test_public_layouts(find: Callable[[str], Found], product: str, label: str) -> None:
    found = find(product)
    assert not found.quarantine, "a mask for each defect"
    assert found.labels == {label: EACH * len(KINDS), "good": GOOD}
