"""The fast vote gives what the plain one gives: all distances in double precision, fully sorted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ancd_ray.data.roles import Classes
from ancd_ray.discovery import classifiers
from ancd_ray.discovery.classifiers import ReferenceClassifier, knn_vote
from ancd_ray.discovery.features.calibration import Calibration
from ancd_ray.discovery.nearest import find_nearest
from ancd_ray.discovery.normal_curve import NormalCurve
from ancd_ray.discovery.novelty import Novelty

VOTES = 5


def _plain_vote(features: NDArray[np.float64], known: NDArray[np.float64], probs: NDArray[np.float32]) -> NDArray:
    squared = np.square(features[:, None] - known[None]).sum(axis=2)
    order = np.argsort(squared, axis=1, kind="stable")[:, :VOTES]
    voted = probs[order].mean(axis=1)
    is_same = squared.min(axis=1) < 1e-9
    voted[is_same] = probs[order[is_same, 0]]
    return voted


def _features(n: int, n_known: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Regions, of which the first are references; of the references, two are the same, and some hardly differ."""
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n, 12)) / 12**0.5
    known = np.concatenate([features[: n_known // 2], rng.normal(size=(n_known - n_known // 2, 12)) / 12**0.5])
    known[3] = known[1]
    known[-4:] = known[-5] + 1e-8 * rng.normal(size=(4, 12))
    probs = rng.dirichlet(np.ones(4), n_known).astype(np.float32)
    return features, known, probs


@pytest.mark.parametrize(("n", "n_known"), [(2500, 300), (40, 20), (1, 12), (30, 12)])
def test_the_vote_is_that_of_the_plain_form_to_the_byte(n: int, n_known: int) -> None:
    features, known, probs = _features(n, n_known)
    assert knn_vote(features, known, probs).tobytes() == _plain_vote(features, known, probs).tobytes()


def test_fewer_references_than_votes() -> None:
    nearest = find_nearest(np.zeros((2, 3)), np.eye(3)[:2] * [[1.0], [2.0]], 5)
    assert nearest.rows.tolist() == [[0, 1], [0, 1]]
    assert nearest.squared.tolist() == [[1, 4], [1, 4]]


def test_a_region_has_the_same_neighbors_alone_and_among_others() -> None:
    features, known, _ = _features(300, 100)
    together = find_nearest(features, known, VOTES)
    for row in range(0, 300, 17):
        alone = find_nearest(features[row : row + 1], known, VOTES)
        assert np.array_equal(alone.rows[0], together.rows[row])
        assert alone.squared[0].tobytes() == together.squared[row].tobytes()


def test_regions_that_are_certainly_normal_take_part_in_no_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    features, known, probs = _features(60, 20)
    features = features.astype(np.float32)
    curve = NormalCurve(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 0.6, 0.0]))
    calibration = Calibration.fit(features, (12,))
    classifier = ReferenceClassifier(
        Classes((), 5, True), "", calibration, known.astype(np.float32), probs, curve, "", Novelty.empty(calibration)
    )
    scores = np.linspace(0, 3, 60)
    voted = []

    def count(rows: NDArray[np.float64], *given: NDArray[np.float64]) -> NDArray[np.float32]:
        voted.append(len(rows))
        return knn_vote(rows, *given)

    monkeypatch.setattr(classifiers, "knn_vote", count)
    found = classifier.predict(features, scores).probs_NK
    normal = curve.predict(scores)
    first = np.where(normal < 0.5, 0, normal).astype(np.float32)[:, None]
    known = calibration.apply(classifier.references_MD)
    plain = np.concatenate([first, (1 - first) * _plain_vote(calibration.apply(features), known, probs)], axis=1)
    assert found.tobytes() == plain.tobytes()
    assert sum(voted) == (normal < 1).sum() < 60
