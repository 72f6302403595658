"""Metrics: golden values, comparison with scikit-learn and with slow reference implementations."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ancd_ray.method.metrics import (
    MapCurve,
    auroc,
    cluster_scores,
    confusion,
    hungarian_match,
    mask_overlap,
    normal_scores,
    silhouette,
)


def test_golden(shared_dir: Path) -> None:
    for case in json.loads((shared_dir / "golden" / "loss_golden.json").read_text())["metrics"]:
        found = cluster_scores(np.array(case["y_true"]), np.array(case["y_pred"]))
        assert (found.nmi, found.ari, found.f1) == pytest.approx((case["NMI"], case["ARI"], case["F1"]), rel=1e-6)


def test_names_of_clusters_do_not_matter() -> None:
    labels = np.array(["a", "b", "b", "c"])
    found = cluster_scores(labels, np.array([7, 1, 1, 3]))
    assert (found.nmi, found.ari, found.f1, found.n) == (1, 1, 1, 4)
    assert hungarian_match(labels, np.array([7, 1, 1, 3])) == {7: "a", 1: "b", 3: "c"}


def test_clusters_beyond_the_labels_match_nothing() -> None:
    labels, clusters = np.array(["a"] * 4), np.array([0, 0, 0, 1])
    assert cluster_scores(labels, clusters).f1 == 0.75
    assert confusion(labels, clusters)[2].tolist() == [[3, 1]]


def test_there_is_no_agreement_over_nothing() -> None:
    with pytest.raises(ValueError, match="no sample"):
        cluster_scores(np.zeros(0), np.zeros(0))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40))
def test_matched_samples_are_what_f1_counts(pairs: list[tuple[int, int]]) -> None:
    labels, clusters = np.array(pairs).T
    matching = hungarian_match(labels, clusters)
    assert len(set(matching.values())) == len(matching) == min(len(set(labels)), len(set(clusters)))
    hits = [matching.get(int(cluster)) == label for label, cluster in zip(labels, clusters, strict=True)]
    assert cluster_scores(labels, clusters).f1 == pytest.approx(np.mean(hits))
    assert confusion(labels, clusters)[2].sum() == len(pairs)


def test_normal_precision_and_recall() -> None:
    truth, said = np.array([True, True, False, False]), np.array([True, False, True, True])
    assert normal_scores(truth, said) == (1 / 3, 1 / 2)
    assert normal_scores(truth, np.zeros(4, bool)) == (0, 0)


def test_figures_that_do_not_exist_are_none() -> None:
    assert auroc(np.ones(3, bool), np.arange(3.0)) is None
    assert silhouette(np.eye(3), np.zeros(3), seed=0) is None
    assert MapCurve(0, 1).pixel_auroc() is None
    assert MapCurve(0, 1).aupro() is None


def test_silhouette_of_a_sample_depends_on_the_seed_alone() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat([0, 1, 2], 40)
    tokens = np.eye(3)[clusters] + 0.05 * rng.standard_normal((120, 3))
    assert silhouette(tokens, clusters, seed=0) == pytest.approx(1, abs=0.05)
    assert silhouette(tokens, rng.permutation(clusters), seed=0) == pytest.approx(0, abs=0.1)
    sample = silhouette(tokens, clusters, seed=1, max_n=30)
    assert sample == silhouette(tokens, clusters, seed=1, max_n=30) != silhouette(tokens, clusters, seed=2, max_n=30)


def _maps(n: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(n):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 : 8 + i, 5:12] = 255
        mask[20:24, 20 : 22 + i] = 255
        noise = rng.random((32, 32)) * 0.7
        pairs.append(((noise + 0.3 * (mask > 0) * rng.random()).astype(np.float32), mask))
    return pairs


def _plain_aupro(pairs: list[tuple[np.ndarray, np.ndarray]], max_fpr: float) -> float:
    """Compute the curve level by level, each component separately."""
    normal = np.concatenate([values[mask == 0] for values, mask in pairs])
    components = []
    for values, mask in pairs:
        count, labels = cv2.connectedComponents((mask > 0).astype(np.uint8), connectivity=8)
        components += [values[labels == c] for c in range(1, count)]
    levels = np.linspace(1.0, 0.0, 2001)
    fpr = np.array([(normal >= level).mean() for level in levels])
    pro = np.array([np.mean([(part >= level).mean() for part in components]) for level in levels])
    grid = np.linspace(0, max_fpr, 5001)
    return float(np.interp(grid, fpr, pro).mean())


def test_figures_of_maps_are_those_of_a_plain_computation() -> None:
    pairs, curve = _maps(), MapCurve(0.0, 1.0)
    for values, mask in pairs:
        curve.add(values, mask)
    truth = np.concatenate([mask.ravel() > 0 for _, mask in pairs])
    scores = np.concatenate([values.ravel() for values, _ in pairs])
    assert curve.pixel_auroc() == pytest.approx(roc_auc_score(truth, scores), abs=2e-3)
    assert curve.aupro() == pytest.approx(_plain_aupro(pairs, 0.3), abs=5e-3)


def test_values_at_whole_bins_are_scored_exactly() -> None:
    pairs = [(np.round(values * 64) / 64, mask) for values, mask in _maps()]
    curve = MapCurve(0.0, 2.0)
    for pair in pairs:
        curve.add(*pair)
    truth = np.concatenate([mask.ravel() > 0 for _, mask in pairs])
    assert curve.pixel_auroc() == pytest.approx(roc_auc_score(truth, np.concatenate([v.ravel() for v, _ in pairs])))


def test_a_perfect_and_a_constant_map() -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[2:5, 2:5] = mask[9:15, 9:12] = 255
    perfect, constant = MapCurve(0.0, 255.0), MapCurve(0.0, 1.0)
    perfect.add(mask, mask)
    constant.add(np.full((16, 16), 0.5), mask)
    assert (perfect.pixel_auroc(), perfect.aupro()) == pytest.approx((1, 1))
    assert (constant.pixel_auroc(), constant.aupro()) == pytest.approx((0.5, 0.15))


def test_components_weigh_the_same_whatever_their_size() -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[0, 0] = mask[4:14, 4:14] = 255
    values = np.zeros((16, 16))
    values[0, 0] = 1
    curve = MapCurve(0.0, 1.0)
    curve.add(values, mask)
    assert curve.aupro() == pytest.approx(0.5 + 0.15 / 2)


@pytest.mark.parametrize(("values", "message"), [(np.zeros((3, 4)), "shape"), (np.full((4, 4), np.nan), "not finite")])
def test_maps_that_cannot_be_compared_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MapCurve(0.0, 1.0).add(values, np.zeros((4, 4), np.uint8))


def test_shards_add_up() -> None:
    pairs = _maps()
    whole, first, second = MapCurve(0.0, 1.0), MapCurve(0.0, 1.0), MapCurve(0.0, 1.0)
    for i, pair in enumerate(pairs):
        whole.add(*pair)
        (first if i % 2 else second).add(*pair)
    first.merge(MapCurve.from_dict(json.loads(json.dumps(second.to_dict()))))
    first = pickle.loads(pickle.dumps(first))
    assert first.aupro() == pytest.approx(whole.aupro())
    assert first.pixel_auroc() == pytest.approx(whole.pixel_auroc())


@pytest.mark.parametrize("max_points", [60, 10])
def test_a_curve_of_few_points_has_the_area_of_all(max_points: int) -> None:
    curve = MapCurve(0.0, 1.0)
    for pair in _maps():
        curve.add(*pair)
    found = curve.pro_curve(0.3, max_points)
    assert found is not None
    fpr, pro = found
    assert len(fpr) <= max_points
    assert (fpr[0], pro[0], fpr[-1]) == (0, 0, 0.3)
    assert np.all(np.diff(fpr) >= 0)
    assert np.all(np.diff(pro) >= 0)
    assert np.trapezoid(pro, fpr) / 0.3 == pytest.approx(curve.aupro(), abs=0.1 / max_points)
    assert MapCurve(0.0, 1.0).pro_curve() is None


def test_overlap_of_masks() -> None:
    drawn = np.zeros((8, 8), np.uint8)
    drawn[:4, :4] = 255
    twice = np.zeros((8, 8), np.uint8)
    twice[2:6, :8] = 1
    assert mask_overlap(drawn, drawn) == (1, 1)
    assert mask_overlap(twice, drawn) == (8 / 40, 2)
    assert mask_overlap(np.zeros((8, 8), np.uint8), drawn) == (0, 0)
    with pytest.raises(ValueError, match="empty"):
        mask_overlap(drawn, np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="shape"):
        mask_overlap(drawn[1:], drawn)
