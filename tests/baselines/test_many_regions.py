"""Above the cap: classes of a few regions are found, memory is bounded, and nothing changes below the cap."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ancd_ray.data.roles import Classes
from ancd_ray.discovery import cluster_regions as module
from ancd_ray.discovery import novelty
from ancd_ray.discovery.classifiers import load_classifier
from ancd_ray.discovery.cluster_regions import cluster_regions
from ancd_ray.discovery.clusterings import CLUSTERINGS, TAKE_WEIGHTS
from ancd_ray.discovery.features.calibration import Calibration
from ancd_ray.discovery.features.region_features import RegionFeatures, StoredFeatures, average_features
from ancd_ray.discovery.image_scores import ImageScores
from ancd_ray.discovery.micro_clusters import find_micro_clusters

WIDTHS = (20, 44)
RARE = 20


def _regions(n: int, seed: int = 0) -> tuple[RegionFeatures, np.ndarray]:
    """Regions of four large classes and one of 20 regions."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, sum(WIDTHS)))
    cls = rng.integers(4, size=n)
    cls[rng.permutation(n)[:RARE]] = 4
    values = (centres[cls] + 0.4 * rng.normal(size=(n, sum(WIDTHS)))).astype(np.float32)
    shape = rng.normal(size=(n, 5)).astype(np.float32)
    views = np.zeros((n, 3, 2, sum(WIDTHS)), np.float16)
    views[:, :, 0] = values[:, None] + 0.1 * rng.normal(size=(n, 3, sum(WIDTHS)))
    found = RegionFeatures(values, values, values, shape, np.ones(n, np.float32), WIDTHS)
    return replace(found, ringed_ND=values, views_NV2D=views), cls


class _Stored:
    """A table `features` in parts of 1,000 rows, which counts the bytes that were read."""

    def __init__(self, features: RegionFeatures) -> None:
        arrays = {"masked": features.masked_ND, "centred": features.centred_ND, "top": features.top_ND}
        arrays |= {"shape": features.shape_NS, "ringed": features.ringed_ND}
        columns: dict[str, Any] = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]).cast(
                pa.list_(pa.float32())
            )
            for name, values in arrays.items()
        }
        about = {"score": features.score_N, "image_id": [str(i) for i in range(len(features))]}
        views = pa.array([views.tobytes() for views in features.views_NV2D], pa.binary())
        self.table = pa.table({**columns, **about, "area": np.ones(len(features), np.int64), "views": views})
        self.num_rows = len(features)
        self.parts = [
            SimpleNamespace(start=s, rows=min(1000, len(features) - s)) for s in range(0, len(features), 1000)
        ]
        self.values = {"widths": list(features.widths)}
        self.columns: set[str] = set()

    def read(self, columns: list[str]) -> pa.Table:
        return self.table.select(columns)

    def read_part(self, part: Any, columns: list[str]) -> pa.Table:
        self.columns |= set(columns)
        return self.table.select(columns).slice(part.start, part.rows)


@pytest.mark.parametrize("method", ["ward", "linked"])
@pytest.mark.parametrize("seed", range(3))
def test_a_rare_class_is_found_among_many_regions(monkeypatch: pytest.MonkeyPatch, method: str, seed: int) -> None:
    """Of a random sample of one in 16, one region of the class is expected, and it is outvoted."""
    monkeypatch.setattr(module, "MAX_REGIONS", 500)
    regions, cls = _regions(8000, seed)
    classifier = cluster_regions(regions, None, method, Classes((), 5, False), seed, "")
    assert len(classifier.references_MD) <= 600
    again = load_classifier(classifier.save().__getitem__)
    found = again.predict(regions.masked_ND, None).probs_NK.argmax(axis=1)
    rare = np.bincount(found[cls == 4]).argmax()
    both = ((found == rare) & (cls == 4)).sum()
    assert 2 * both / ((found == rare).sum() + RARE) > 0.9


@pytest.mark.parametrize("method", sorted(CLUSTERINGS))
def test_every_clustering_copes_with_many_regions(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(module, "MAX_REGIONS", 100)
    regions, cls = _regions(900)
    classifier = cluster_regions(regions, None, method, Classes((), 4, False), 0, "")
    found = classifier.predict(regions.masked_ND, None).probs_NK.argmax(axis=1)
    hits = sum(np.bincount(cls[found == k], minlength=5).max() for k in range(4))
    assert hits > 850, "classes are mostly pure"
    assert (classifier.votes == 1) == (method in TAKE_WEIGHTS)


@pytest.mark.parametrize("method", sorted(CLUSTERINGS))
@pytest.mark.parametrize("has_normal", [False, True])
def test_stored_features_give_the_classifier_of_features_in_memory(method: str, has_normal: bool) -> None:
    """To the byte, although only some columns and rows are read."""
    regions, _ = _regions(2300)
    image_scores = np.where(np.arange(2300) % 3, 1.0, 5.0)
    scores = ImageScores(image_scores, image_scores) if has_normal else None
    classes, stored = Classes((), 3, has_normal), _Stored(regions)
    plain = cluster_regions(regions, None, method, classes, 0, "", scores)
    found = cluster_regions(StoredFeatures(stored), None, method, classes, 0, "", scores)  # type: ignore[arg-type]
    assert found.save() == plain.save()
    assert ("top" in stored.columns) == (method == "uniformaly")
    assert ("centred" in stored.columns) == (method == "linked")


def test_means_are_those_of_the_members() -> None:
    regions, _ = _regions(3000)
    rows = np.arange(0, 3000, 2)
    labels = find_micro_clusters(regions.masked_ND[rows], 200, seed=0)
    assert 180 <= labels.max() + 1 <= 220
    assert np.array_equal(labels, find_micro_clusters(regions.masked_ND[rows], 200, seed=0))
    found = average_features(StoredFeatures(_Stored(regions)), rows, labels, ("masked", "shape"), None)  # type: ignore[arg-type]
    for label in (0, 7, labels.max()):
        members = rows[labels == label]
        assert found.weight_N is not None
        assert found.weight_N[label] == len(members)
        np.testing.assert_allclose(found.masked_ND[label], regions.masked_ND[members].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(found.shape_NS[label], regions.shape_NS[members].mean(axis=0), atol=1e-5)


def test_equal_regions_are_few_micro_clusters() -> None:
    values = np.eye(3, 8, dtype=np.float32)[np.arange(1000) % 3]
    assert find_micro_clusters(values, 300, seed=0).max() < 300
    assert len(np.unique(find_micro_clusters(np.zeros((500, 4), np.float32), 200, seed=0))) <= 64


def test_many_regions_need_one_copy_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in double precision of all rows would be twice the bound by itself."""
    monkeypatch.setattr(module, "MAX_REGIONS", 200)
    monkeypatch.setattr(novelty, "MAX_REFERENCES", 200)
    regions, _ = _regions(60_000)
    stored = StoredFeatures(_Stored(regions))  # type: ignore[arg-type]
    single = regions.masked_ND.nbytes
    tracemalloc.start()
    try:
        cluster_regions(stored, None, "ward", Classes((), 5, False), 0, "")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert single < peak < 2 * single


def test_calibration_of_blocks_is_that_of_all_rows_to_the_byte() -> None:
    values = np.random.default_rng(0).normal(size=(9001, 12)).astype(np.float32) + 3
    mean = values.mean(axis=0, dtype=np.float64)
    parts = np.split(values - mean, [5], axis=1)
    lengths = tuple(float(np.sqrt(np.square(part).sum(axis=1).mean() + 1e-12)) for part in parts)
    found = Calibration.fit(values, (5, 7))
    assert found.mean_D.tobytes() == mean.tobytes()
    assert found.lengths == lengths
