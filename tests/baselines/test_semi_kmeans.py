"""Semi-supervised k-means: how the classes of the base set change the clusters of the novel regions."""

from __future__ import annotations

import numpy as np
import pytest

from ancd_ray.discovery.clusterings import kmeans, semi_kmeans
from ancd_ray.discovery.features.region_features import RegionFeatures
from ancd_ray.method.metrics import cluster_scores

GROUP = np.repeat([0, 1, 2], 20)  # of the novel regions


def _regions(centres: np.ndarray, seed: int, labels: tuple[str, ...] | None = None) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    tokens = centres + 0.2 * rng.normal(size=centres.shape)
    n = len(tokens)
    return RegionFeatures(tokens, tokens, tokens, rng.normal(size=(n, 5)), np.linspace(0, 1, n), (6,), labels)


@pytest.fixture
def novel() -> RegionFeatures:
    """Two groups near each other, and a third far from both."""
    return _regions(np.array([[0.0] * 6, [2.0] * 6, [8.0] * 6])[GROUP], seed=0)


@pytest.fixture
def base() -> RegionFeatures:
    """One labelled class, where the third group of novel regions is."""
    return _regions(np.full((20, 6), 8.0), seed=1, labels=("known",) * 20)


def test_a_known_class_leaves_the_clusters_to_the_others(novel: RegionFeatures, base: RegionFeatures) -> None:
    """The regions of the known class join the nearest cluster, so that both clusters are novel groups."""
    found = semi_kmeans.classes(novel, base, 2, seed=0).argmax(axis=1)
    assert cluster_scores(np.array([0, 1, 1])[GROUP], found).ari == 1
    without = kmeans.classes(novel, base, 2, seed=0).argmax(axis=1)
    assert cluster_scores(np.array([0, 0, 1])[GROUP], without).ari == 1


def test_without_a_base_set_it_is_k_means(novel: RegionFeatures, base: RegionFeatures) -> None:
    expected = kmeans.classes(novel, None, 2, seed=3)
    assert np.array_equal(semi_kmeans.classes(novel, None, 2, seed=3), expected)
    unlabelled = RegionFeatures(**{**vars(base), "labels": None})
    assert np.array_equal(semi_kmeans.classes(novel, unlabelled, 2, seed=3), expected)


@pytest.mark.parametrize("seed", range(3))
def test_classes_far_from_the_known_one_are_found(base: RegionFeatures, seed: int) -> None:
    novel = _regions(np.array([[0.0] * 6, [2.0] * 6, [-3.0] * 6])[GROUP], seed=2)
    found = semi_kmeans.classes(novel, base, 3, seed)
    assert found.shape == (60, 3)
    assert cluster_scores(GROUP, found.argmax(axis=1)).ari == 1
