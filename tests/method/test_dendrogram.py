"""One dendrogram gives what separate fits of Ward give; weights stand for repeated points."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score, silhouette_score

from ancd_ray.discovery import class_number
from ancd_ray.discovery.class_number import estimate_class_number
from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.clusterings.dendrogram import Dendrogram


def _points(n: int = 90, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(5, 7))[rng.integers(5, size=n)] * 2 + rng.normal(size=(n, 7))


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two clusterings are the same but for the numbers of the classes."""
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("n_classes", [1, 2, 5, 37, 90])
def test_a_cut_is_a_fit_of_its_own(n_classes: int) -> None:
    points = _points()
    assert _is_same(Dendrogram.of_distances(pdist(points)).cut(n_classes), algorithms.ward(points, n_classes))


@pytest.mark.parametrize("n_classes", [1, 2, 5, 37, 90])
def test_with_equal_weights_it_is_the_plain_algorithm(n_classes: int) -> None:
    points = _points()
    found = Dendrogram.of_weighted(points, np.full(len(points), 3.0)).cut(n_classes)
    assert _is_same(found, algorithms.ward(points, n_classes))


def test_a_weight_stands_for_repeated_points() -> None:
    points, weights = _points(60), np.random.default_rng(1).integers(1, 9, 60)
    repeated = np.repeat(points, weights, axis=0)
    first = np.cumsum(weights) - weights
    for n_classes in (2, 4, 9):
        plain = algorithms.ward(repeated, n_classes)[first]
        assert _is_same(Dendrogram.of_weighted(points, weights).cut(n_classes), plain)
        assert not _is_same(algorithms.ward(points, n_classes), plain), "weights matter in this example"


def test_the_number_of_classes_is_that_of_separate_fits() -> None:
    """The plain form: one fit for each number, and distances of each resample computed anew."""
    sets = [_points(60), _points(60, seed=1)]
    found = estimate_class_number(sets, 6)
    labels = {k: [algorithms.ward(x, k) for x in sets] for k in found.numbers}
    curve = [
        np.mean([silhouette_score(x, cls, metric="cosine") for x, cls in zip(sets, labels[k], strict=True)])
        for k in found.numbers
    ]
    agreed, votes = [], []
    for resample in range(10):
        rows = np.sort(np.random.default_rng([0, resample]).permutation(60)[:48])
        again = {k: [algorithms.ward(x[rows], k) for x in sets] for k in found.numbers}
        scores = [
            np.mean([silhouette_score(x[rows], cls, metric="cosine") for x, cls in zip(sets, of_k, strict=True)])
            for of_k in again.values()
        ]
        votes.append(found.numbers[int(np.argmax(scores))])
        agreed.append(
            [
                np.mean([adjusted_rand_score(a[rows], b) for a, b in zip(labels[k], again[k], strict=True)])
                for k in found.numbers
            ]
        )
    assert found.silhouette == curve
    assert found.stability == np.mean(agreed, axis=0).tolist()
    assert found.by_silhouette == found.numbers[int(np.argmax(curve))]
    members = {
        k: [
            *labels[k],
            *(AgglomerativeClustering(k, metric="cosine", linkage="average").fit_predict(x) for x in sets),
            *(algorithms.kmeans(x, k) for x in sets),
        ]
        for k in found.numbers
    }
    agreement = [np.mean([adjusted_rand_score(a, b) for a, b in combinations(each, 2)]) for each in members.values()]
    assert found.agreement == pytest.approx(agreement)
    assert found.n_classes == found.numbers[1 + int(np.argmax(agreement[1:]))]
    assert found.confidence == sum(found.low <= vote <= found.high for vote in votes) / 10


@pytest.mark.parametrize(("n_classes", "by_silhouette"), [(4, 4), (4, 5), (5, 2), (3, 9)])
def test_the_range_reaches_from_one_estimate_towards_the_other(
    monkeypatch: pytest.MonkeyPatch, n_classes: int, by_silhouette: int
) -> None:
    monkeypatch.setattr(class_number, "_compute_agreement", lambda *_: -np.abs(np.arange(2, 11) - n_classes) * 1.0)
    monkeypatch.setattr(
        class_number, "_compute_silhouettes", lambda *_: -np.abs(np.arange(2, 11) - by_silhouette) * 1.0
    )
    found = estimate_class_number([_points(60)], 10)
    assert found.numbers == list(range(2, 11))
    assert (found.n_classes, found.by_silhouette) == (n_classes, by_silhouette)
    assert found.low <= found.n_classes <= found.high
    assert found.high - found.low == min(abs(n_classes - by_silhouette), 2)
    assert found.low <= max(min(by_silhouette, n_classes + 2), n_classes - 2) <= found.high
    assert found.confidence == float(abs(n_classes - by_silhouette) <= 2)
