"""The tree of classes: cuts are those of the dendrogram, and merges and splits go back and forth."""

from __future__ import annotations

import numpy as np
import pytest

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.class_tree import ClassTree
from ancd_ray.discovery.classifiers import ReferenceClassifier, load_classifier
from ancd_ray.discovery.cluster_regions import cluster_regions
from ancd_ray.discovery.clusterings import TREES
from ancd_ray.discovery.clusterings.dendrogram import Dendrogram, Nested
from ancd_ray.discovery.image_scores import ImageScores
from ancd_ray.stages.cluster import NESTED
from tests.baselines.test_baselines import _regions, _scores


def _tree(n_leaves: int = 8, has_normal: bool = False, n_points: int = 60) -> tuple[Dendrogram, ClassTree]:
    rng = np.random.default_rng(0)
    points, score_N = rng.normal(size=(n_points, 3)), rng.random(n_points)
    dendrogram = Dendrogram.of_points(points)
    return dendrogram, ClassTree.of(Nested(dendrogram), n_leaves, score_N, None, has_normal)


def test_methods_with_a_tree_are_those_that_say_so() -> None:
    assert set(NESTED) == set(TREES)


@pytest.mark.parametrize("n_leaves", [1, 2, 8, 60, 90])
def test_every_cut_is_that_of_the_dendrogram(n_leaves: int) -> None:
    dendrogram, tree = _tree(n_leaves)
    assert tree.n_leaves == min(n_leaves, 60)
    for k in range(1, tree.n_leaves + 1):
        cut = tree.cut(k)
        assert np.array_equal(cut.probs_MK.argmax(axis=1), dendrogram.cut(k))
        assert cut.n_classes == k
    assert np.all(np.diff(tree.heights) >= 0)
    assert tree.weight_L.sum() == 60


def test_a_number_beyond_the_leaves_is_refused() -> None:
    _, tree = _tree()
    for k in (0, 9):
        with pytest.raises(ValueError, match=f"from 1 to 8 classes, and not {k}"):
            tree.cut(k)


def test_the_normal_class_is_that_with_the_lowest_score() -> None:
    _, tree = _tree(has_normal=True)
    for k in range(1, 9):
        cut = tree.cut(k)
        scores = [np.average(tree.score_L[cut.cls_L == c], weights=tree.weight_L[cut.cls_L == c]) for c in range(k)]
        assert np.argmin(scores) == 0


def test_a_split_undoes_the_highest_merge_within_a_class() -> None:
    _, tree = _tree()
    for k in range(1, 8):
        cut, finer = tree.cut(k), tree.cut(k + 1)
        pairs = set(zip(cut.cls_L.tolist(), finer.cls_L.tolist(), strict=True))
        (divided,) = {c for c in range(k) if sum(c == a for a, _ in pairs) == 2}
        split = cut.split(divided)
        found = set(zip(split.cls_L.tolist(), finer.cls_L.tolist(), strict=True))
        assert len(found) == k + 1, "the same leaves are together"
        larger, smaller = (tree.weight_L[split.cls_L == c].sum() for c in (divided, k))
        assert larger >= smaller
        assert np.array_equal(split.merge([k, divided]).cls_L, cut.cls_L)
    with pytest.raises(ValueError, match="a leaf"):
        tree.cut(8).split(3)


def test_any_classes_can_be_merged_and_keep_the_lowest_number() -> None:
    _, tree = _tree()
    cut = tree.cut(5)
    merged = cut.merge([3, 1])
    assert merged.n_classes == 4
    assert np.array_equal(merged.cls_L, np.array([0, 1, 2, 1, 3])[cut.cls_L])


@pytest.mark.parametrize("normal_by_scores", [False, True])
@pytest.mark.parametrize("has_normal", [False, True])
def test_a_cut_of_one_discovery_is_another_discovery(has_normal: bool, normal_by_scores: bool) -> None:
    regions, scores = _regions(0), _scores() if normal_by_scores else None

    def discover(n_classes: int) -> ReferenceClassifier:
        return cluster_regions(regions, None, "ward", Classes((), n_classes, has_normal), 0, "digest", scores, 6)

    three, five = discover(3), discover(5)
    assert three.tree is not None
    assert five.tree is not None
    told = int(three.normal is not None)
    again = three.regroup(three.tree.cut(5 - told))
    found = load_classifier(again.save().__getitem__)
    assert found.save() == five.save()
    assert again.regroup(again.tree.cut(3 - told)).save() == three.save()
    of_images = scores.of_regions_NF if isinstance(scores, ImageScores) else None
    assert np.array_equal(
        again.predict(regions.masked_ND, of_images).probs_NK, five.predict(regions.masked_ND, of_images).probs_NK
    )
