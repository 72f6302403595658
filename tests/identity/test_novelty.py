"""Novelty of regions, and new classes among unknown ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ancd_ray.discovery import novelty as module
from ancd_ray.discovery.features.calibration import Calibration
from ancd_ray.discovery.new_classes import find_new_classes
from ancd_ray.discovery.novelty import FILE, Novelty

WIDTHS = (8, 8)


def _blobs(counts: list[int], seed: int = 0, spread: float = 0.3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(len(counts), sum(WIDTHS)))
    cls = np.repeat(np.arange(len(counts)), counts)
    return (centres[cls] + spread * rng.normal(size=(len(cls), sum(WIDTHS)))).astype(np.float32), cls


def _fit(features: NDArray[np.float32], cls: NDArray[np.int64]) -> Novelty:
    return Novelty.fit(features, cls, Calibration.fit(features, WIDTHS), seed=0)


def test_known_regions_are_unknown_at_the_stated_rate() -> None:
    fitted = _fit(*_blobs([200, 200, 100]))
    others, _ = _blobs([800, 800, 400], seed=5)
    share = (fitted.measure(others).novelty_N > 0.95).mean()
    assert 0.03 < share < 0.07
    own = fitted.measure(_blobs([200, 200, 100])[0]).novelty_N
    assert 0.03 < (own > 0.95).mean() < 0.07, "a region of the discovery is not compared with itself"


def test_regions_of_another_class_are_novel() -> None:
    features, cls = _blobs([200, 200, 100])
    is_known = cls < 2
    fitted = _fit(features[is_known], cls[is_known])
    found = fitted.measure(features)
    assert (found.novelty_N[~is_known] > 0.98).mean() > 0.95
    assert (found.cls_N[is_known] == cls[is_known]).mean() > 0.99


def test_few_references_call_nothing_unknown() -> None:
    fitted = _fit(*_blobs([10, 10]))
    far = np.full((3, sum(WIDTHS)), 50, np.float32)
    assert fitted.measure(far).novelty_N.tolist() == pytest.approx([20 / 21] * 3)
    assert Novelty.empty(fitted.calibration).measure(far).novelty_N.tolist() == [0, 0, 0]


def test_one_region_alone() -> None:
    features, cls = _blobs([1])
    assert _fit(features, cls).measure(features).novelty_N.tolist() == [0]


def test_of_many_regions_rare_classes_keep_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFERENCES", 100)
    features, cls = _blobs([2000, 2000, 30])
    fitted = _fit(features, cls)
    assert np.bincount(fitted.cls_M).tolist() == [35, 35, 30]
    others, _ = _blobs([2000, 2000, 30], seed=7)
    assert (fitted.measure(others).novelty_N > 0.95).mean() < 0.1, "distances count by the size of their class"


def test_it_is_the_same_after_it_was_saved() -> None:
    features, cls = _blobs([60, 60])
    fitted = _fit(features, cls)
    files = fitted.save()
    loaded = Novelty.load(files.__getitem__)
    assert list(files) == [FILE]
    others, _ = _blobs([50, 50], seed=3)
    for one, other in zip(fitted.measure(others), loaded.measure(others), strict=True):
        assert one.tobytes() == other.tobytes()


def test_an_added_class_takes_its_regions_and_no_others() -> None:
    features, cls = _blobs([200, 200, 60])
    is_known = cls < 2
    fitted = _fit(features[is_known], cls[is_known])
    extended = fitted.extend(features[~is_known][:30], np.full(30, 2))
    found = extended.measure(features)
    assert (found.cls_N[~is_known] == 2).all()
    assert (found.cls_N[is_known] == fitted.measure(features[is_known]).cls_N).all()
    assert (found.novelty_N[~is_known] > 0.98).mean() < 0.2, "its regions are known now"


def test_a_class_is_found_among_unknown_regions_and_scatter_is_not() -> None:
    features, cls = _blobs([200, 200, 40])
    is_known = cls < 2
    fitted = _fit(features[is_known], cls[is_known])
    scatter = np.random.default_rng(2).normal(size=(8, sum(WIDTHS))).astype(np.float32) * 4
    pool = np.concatenate([scatter, features[~is_known]])
    (found,) = find_new_classes(pool, fitted)
    assert sorted(found.rows.tolist()) == list(range(8, 48))
    assert found.separateness > 1
    assert find_new_classes(scatter, fitted) == []
    assert find_new_classes(pool[:0], fitted) == []


def test_the_tail_of_a_known_class_is_no_new_class() -> None:
    features, cls = _blobs([300, 300])
    fitted = _fit(features, cls)
    others, _ = _blobs([1500, 1500], seed=9)
    tail = others[fitted.measure(others).novelty_N > 0.97]
    assert len(tail) >= 30
    assert find_new_classes(tail, fitted) == []
