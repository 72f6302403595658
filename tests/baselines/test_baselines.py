"""Every baseline on features with three plain classes; what each is meant to do differently."""

from __future__ import annotations

import numpy as np
import pytest

from ancd_ray.discovery.clusterings import BY_NAME
from ancd_ray.discovery.features.region_features import Described
from ancd_ray.method.metrics import cluster_scores
from ancd_ray.stages.cluster import normal_first, voted, with_normal


def _regions(seed: int, labels: tuple[str, ...] | None = None, shift: float = 0.0) -> Described:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(3, 6)) * 3 + shift
    tokens = centres[np.arange(60) % 3] + 0.4 * rng.normal(size=(60, 6))
    shape = rng.normal(size=(60, 5))
    score = np.linspace(0, 1, 60)
    return Described(tokens, tokens, tokens, shape, score, np.ones(60), (6,), labels)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_baseline_finds_plain_classes(name: str) -> None:
    base = _regions(1, tuple("ab"[i % 2] for i in range(60)), shift=20.0)
    probs = BY_NAME[name](_regions(0), base, 3, 0)
    assert probs.shape == (60, 3)
    assert cluster_scores(np.arange(60) % 3, probs.argmax(axis=1)).ari > 0.95


def test_normal_is_the_first_class() -> None:
    novel = _regions(0)
    normal = (np.arange(60) % 3 == 0).astype(float)
    probs = with_normal(novel, None, "ward", 3, 0, normal)
    assert np.array_equal(probs.argmax(axis=1) == 0, normal == 1)
    assert cluster_scores(np.arange(60) % 3, probs.argmax(axis=1)).ari > 0.95
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-6)
    assert with_normal(novel, None, "ward", 1, 0, normal).argmax(axis=1).tolist() == [0] * 60


def test_the_class_with_the_lowest_scores_is_normal() -> None:
    probs = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    assert normal_first(probs, np.array([0.9, 0.1, 0.5, 0.4])).argmax(axis=1).tolist() == [1, 0, 2, 2]


def test_regions_beyond_the_sample_follow_their_neighbours() -> None:
    novel = _regions(0)
    chosen = np.arange(30)
    probs = np.eye(3, dtype=np.float32)[chosen % 3]
    found = voted(novel.masked_ND, novel.masked_ND[chosen], probs)
    assert found.argmax(axis=1).tolist() == (np.arange(60) % 3).tolist()
