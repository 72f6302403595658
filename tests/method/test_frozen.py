"""Clusterings of frozen features, number of classes, normal images, shape cues, single thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import kneighbors_graph

from ancd_ray.discovery.class_number import estimate_class_number
from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.features.calibration import Calibration, calibrate
from ancd_ray.discovery.features.shape import CUES, compute_shape_cues
from ancd_ray.discovery.normal_curve import NormalCurve
from ancd_ray.method.metrics import cluster_scores
from ancd_ray.method.thresholds import exceed_normal, threshold_mask

SIZES = (40, 25, 12)


def _blobs(noise: float = 0.5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    centers = rng.normal(size=(len(SIZES), 8)) * 3
    return centers[labels] + noise * rng.normal(size=(len(labels), 8)), labels


@pytest.mark.parametrize("cluster", [algorithms.ward, algorithms.kmeans, algorithms.gmm])
def test_every_clustering_finds_blobs(cluster) -> None:  # type: ignore[no-untyped-def]
    features, labels = _blobs()
    assert cluster_scores(labels, cluster(features, 3)).ari > 0.95


def test_calibrated_gives_each_scale_the_same_length() -> None:
    tokens = np.random.default_rng(0).normal(size=(50, 6)) * [1, 1, 1, 100, 100, 100] + 7
    found = calibrate(tokens, (3, 3))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    for part in (found[:, :3], found[:, 3:]):
        assert np.square(part).sum(axis=1).mean() == pytest.approx(0.5)
    assert np.array_equal(Calibration.fit(tokens, (3, 3)).apply(tokens[:4]), found[:4])


def test_linked_pieces_keep_a_large_class_whole() -> None:
    """Ward splits a long class before it separates two small ones; links do not."""
    rng = np.random.default_rng(0)
    long = np.stack([np.linspace(0, 12, 120), np.zeros(120)], axis=1)
    features = np.concatenate([long, np.tile([4.0, 3.0], (15, 1)), np.tile([6.5, 3.0], (15, 1))])
    features += 0.2 * rng.normal(size=features.shape)
    labels = np.repeat([0, 1, 2], [120, 15, 15])
    assert cluster_scores(labels, algorithms.ward(features, 3)).ari < 0.6
    found = algorithms.neighbor_linked_ward(features, kneighbors_graph(features, 8), 3, n_pieces=12)
    assert cluster_scores(labels, found).ari > 0.95
    assert set(found) == {0, 1, 2}


def test_number_of_classes_of_blobs() -> None:
    features, _ = _blobs()
    found = estimate_class_number([features], max_classes=6)
    assert found.n_classes == 3
    assert found.confidence > 0.8
    assert found.numbers == [2, 3, 4, 5, 6]
    assert found.stability[1] > 0.95
    with pytest.raises(ValueError, match="too few"):
        estimate_class_number([features[:3]], max_classes=6)


def test_normal_images_by_their_scores() -> None:
    rng = np.random.default_rng(0)
    scores = np.exp(np.concatenate([rng.normal(0, 0.1, 200), rng.normal(1, 0.3, 100)]))
    curve = NormalCurve.fit(scores)
    normal = curve.predict(scores) > 0.5
    assert normal[:200].mean() > 0.95
    assert normal[200:].mean() < 0.05
    order = np.argsort(scores)
    assert np.all(np.diff(curve.predict(scores)[order]) <= 0), "a higher score is never more normal"
    assert curve.predict(np.array([0.0, 1e9])).tolist() == [1, curve.probability_S[-1]], (
        "it is constant beyond its ends"
    )
    two = np.array([0.0, 1.0, 1.0, 0.0])
    assert NormalCurve.fit(two).predict(two).tolist() == [1, 0, 0, 1]
    assert not NormalCurve.fit(np.ones(4)).predict(np.ones(4)).any()


@pytest.mark.parametrize("n_normal", [0, 1, 200])
def test_normal_images_by_the_scores_of_known_ones(n_normal: int) -> None:
    """Whether all images are defects, or a few or most of them are normal: those are that score like the known ones."""
    rng = np.random.default_rng(0)
    known, scores = (np.exp(rng.normal(0, 0.1, n)) for n in (40, n_normal))
    scores = np.concatenate([scores, np.exp(rng.normal(1, 0.3, 100))])
    normal = NormalCurve.fit(scores, known).predict(scores) > 0.5
    assert normal[:n_normal].mean() > 0.95 if n_normal else True
    assert normal[n_normal:].mean() < 0.05
    if not n_normal:
        assert (NormalCurve.fit(scores).predict(scores) > 0.5).mean() > 0.2, "without a reference, some have to be"


def test_a_set_of_normal_images_is_mostly_normal_by_known_ones() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(10):
        known, only = (np.exp(rng.normal(0, 0.1, n)) for n in (40, 50))
        shares.append((NormalCurve.fit(only, known).predict(only) > 0.5).mean())
    assert np.mean(shares) > 0.8


def test_wide_and_weak_anomalies_are_told_from_normal_images() -> None:
    """Of each image there are two figures, the highest value and the mean of the top; either may be what is unusual."""
    rng = np.random.default_rng(0)
    known, normal, narrow, wide = (np.exp(rng.normal(0, 0.1, (n, 2))) for n in (40, 100, 50, 50))
    narrow[:, 0] *= 3
    wide[:, 1] *= 3
    images = np.concatenate([normal, narrow, wide])
    curve = NormalCurve.fit(images, known)
    found = curve.predict(images) > 0.5
    assert found[:100].mean() > 0.9
    assert found[100:].mean() < 0.05
    one = NormalCurve.fit(images[:, 0], known[:, 0]).predict(images[:, 0]) > 0.5
    assert one[150:].mean() > 0.8, "by the highest value alone, they look normal"
    again = NormalCurve.load(curve.save())
    assert again is not None
    assert np.array_equal(again.predict(images), curve.predict(images))
    blind = NormalCurve.fit(images)
    assert np.array_equal(blind.predict(images), NormalCurve.fit(images[:, 0]).predict(images[:, 0]))
    assert NormalCurve.load({}) is None


@pytest.mark.parametrize("known", [np.zeros((9, 2)), np.ones((9, 2)), np.ones((1, 2))])
def test_known_images_without_differences_do_not_scale_figures(known: NDArray[np.float64]) -> None:
    images = np.exp(np.random.default_rng(0).normal(0, 0.5, (60, 2)))
    probability = NormalCurve.fit(images, known).predict(images)
    assert np.array_equal(probability, NormalCurve.fit(images[:, 0], known[:, 0]).predict(images[:, 0]))
    assert np.isfinite(probability).all()


def test_shape_cues_include_the_size_before_cropping() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 28:34] = 255
    small, large = (dict(zip(CUES, compute_shape_cues(mask, side), strict=True)) for side in (64, 640))
    assert large["log_area"] - small["log_area"] == pytest.approx(np.log(100), abs=0.02)
    assert large["log_length"] - small["log_length"] == pytest.approx(np.log(10), abs=1e-5)
    for cue in ("log_elongation", "solidity", "log_compactness"):
        assert small[cue] == large[cue]
    assert small["log_elongation"] == pytest.approx(np.log(20 / 6), abs=0.05)
    assert not compute_shape_cues(np.zeros((8, 8), np.uint8), 8).any()


def test_single_thresholds() -> None:
    values = np.zeros((20, 20), np.float32)
    values[2:6, 2:6], values[10:14, 10:14] = 10.0, 6.0
    mask, n_regions = threshold_mask(values, 0.0, 10.0, "fixed", 0.7)
    assert n_regions == 1
    assert set(np.unique(mask)) == {0, 255}
    assert threshold_mask(values, 0.0, 10.0, "fixed", 0.5)[1] == 2
    assert threshold_mask(values, 0.0, 10.0, "otsu")[1] == 2
    assert threshold_mask(values, 3.0, 3.0, "otsu")[1] == 0
    with pytest.raises(ValueError, match="finite"):
        threshold_mask(np.full((2, 2), np.nan), 0.0, 1.0, "otsu")


def test_pixels_above_normal_ones() -> None:
    values = np.zeros((20, 20), np.float32)
    values[2:8, 2:8], values[10:14, 10:14], values[18, 18] = 10.0, 6.0, 6.0
    mask, n_regions = exceed_normal(values, 5.0)
    assert n_regions == 2, "a speck is dropped"
    assert np.array_equal(mask > 0, (values > 5) & ~np.eye(20, dtype=bool)[:, ::-1] & (np.arange(20) < 18))
    mask, n_regions = exceed_normal(values, 50.0)
    assert n_regions == 1, "the peak is marked in any case"
    assert np.array_equal(mask > 0, values == 10)
    with pytest.raises(ValueError, match="finite"):
        exceed_normal(np.full((2, 2), np.nan), 1.0)
