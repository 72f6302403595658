"""Every baseline on features with three plain classes; what each is meant to do differently."""

from __future__ import annotations

import numpy as np
import pytest

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.classifiers import knn_vote, load_classifier, put_normal_first
from ancd_ray.discovery.cluster_regions import MAX_REGIONS, cluster_regions
from ancd_ray.discovery.clusterings import CLUSTERINGS
from ancd_ray.discovery.features.region_features import RegionFeatures
from ancd_ray.discovery.image_scores import ImageScores
from ancd_ray.method.metrics import cluster_scores


def _regions(seed: int, labels: tuple[str, ...] | None = None, shift: float = 0.0) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(3, 6)) * 3 + shift
    tokens = centres[np.arange(60) % 3] + 0.4 * rng.normal(size=(60, 6))
    shape = rng.normal(size=(60, 5))
    score = np.linspace(0, 1, 60)
    views = np.zeros((60, 4, 2, 6))
    views[:, :, 0] = tokens[:, None] + 0.1 * rng.normal(size=(60, 4, 6))
    return RegionFeatures(tokens, tokens, tokens, shape, score, (6,), labels, ringed_ND=tokens, views_NV2D=views)


@pytest.mark.parametrize("name", sorted(CLUSTERINGS))
def test_baseline_finds_plain_classes(name: str) -> None:
    base = _regions(1, tuple("ab"[i % 2] for i in range(60)), shift=20.0)
    probs = CLUSTERINGS[name](_regions(0), base, 3, 0)
    assert probs.shape == (60, 3)
    assert cluster_scores(np.arange(60) % 3, probs.argmax(axis=1)).ari > 0.95


def _scores(n: int = 60) -> ImageScores:
    """Scores of images, one a region, of which every third is normal."""
    scores = np.where(np.arange(n) % 3 == 0, 1.0, 5.0)
    return ImageScores(scores, scores)


@pytest.mark.parametrize("name", sorted(CLUSTERINGS))
@pytest.mark.parametrize("has_normal", [False, True])
def test_a_classifier_keeps_what_was_clustered_and_survives_saving(name: str, has_normal: bool) -> None:
    novel = _regions(0)
    scores = _scores() if has_normal else None
    classifier = cluster_regions(novel, None, name, Classes((), 3, has_normal), 0, "digest", scores)
    image_scores = scores.of_regions_NF if scores else None
    found = classifier.predict(novel.masked_ND.astype(np.float32), image_scores)
    if not has_normal:
        assert np.array_equal(found.probs_NK, CLUSTERINGS[name](novel, None, 3, 0))
    files = classifier.save()
    again = load_classifier(files.__getitem__).predict(novel.masked_ND.astype(np.float32), image_scores)
    assert np.array_equal(found.probs_NK, again.probs_NK)
    np.testing.assert_allclose(found.probs_NK.sum(axis=1), 1, rtol=1e-6)
    other = _regions(1)  # regions of the same classes that were not clustered
    assert (
        cluster_scores(found.probs_NK.argmax(axis=1), classifier.predict(other.masked_ND, image_scores)[1][:, 0]).ari
        > 0.9
    )


def test_normal_is_the_first_class() -> None:
    novel = _regions(0)
    classifier = cluster_regions(novel, None, "ward", Classes((), 3, True), 0, "digest", _scores())
    probs = classifier.predict(novel.masked_ND, _scores().of_regions_NF).probs_NK
    assert np.array_equal(probs.argmax(axis=1) == 0, np.arange(60) % 3 == 0)
    assert cluster_scores(np.arange(60) % 3, probs.argmax(axis=1)).ari > 0.95
    alone = cluster_regions(novel, None, "ward", Classes((), 1, True), 0, "digest", _scores())
    assert alone.predict(novel.masked_ND, _scores().of_regions_NF).probs_NK.tolist() == [[1.0]] * 60


def test_the_class_with_the_lowest_scores_is_normal() -> None:
    probs = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    assert put_normal_first(probs, np.array([0.9, 0.1, 0.5, 0.4])).argmax(axis=1).tolist() == [1, 0, 2, 2]


def test_regions_beyond_the_sample_get_the_vote_of_their_neighbors() -> None:
    novel = _regions(0)
    chosen = np.arange(30)
    probs = np.eye(3, dtype=np.float32)[chosen % 3]
    found = knn_vote(novel.masked_ND, novel.masked_ND[chosen], probs)
    assert found.argmax(axis=1).tolist() == (np.arange(60) % 3).tolist()


def test_of_very_many_regions_a_sample_is_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ancd_ray.discovery.cluster_regions.MAX_REGIONS", 45)
    assert MAX_REGIONS > 45
    novel = _regions(0)
    classifier = cluster_regions(novel, None, "kmeans", Classes((), 3, False), 0, "digest")
    assert len(classifier.references_MD) == 45
    assert cluster_scores(np.arange(60) % 3, classifier.predict(novel.masked_ND, None)[1][:, 0]).ari > 0.95
