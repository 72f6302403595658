"""Region merging: golden values and comparison with the definition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ancd_ray.method.merging import Rule, merge_images, merge_regions, merge_weights, novel_probs


def test_golden(shared_dir: Path) -> None:
    for case in json.loads((shared_dir / "golden" / "loss_golden.json").read_text())["region_merge"]:
        areas, n_base = np.array(case["areas_px"]), case["num_labeled"]
        probs = novel_probs(np.array(case["logits"]), n_base)
        weights = merge_weights(areas, case["tau_alpha"])
        assert weights == pytest.approx(case["weights"], rel=1e-5)
        assert merge_regions(probs, weights) == pytest.approx(case["image_probs"][n_base:], rel=1e-5, abs=1e-6)
        (image,) = merge_images(np.zeros(len(areas), int), probs, areas, case["tau_alpha"])
        assert image == pytest.approx(case["image_probs"][n_base:], abs=1e-6)
        assert image.argmax() + n_base == case["pred"]


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=8), st.floats(0.1, 1e4))
def test_weights_sum_to_one_and_grow_with_area(areas: list[int], tau: float) -> None:
    weights = merge_weights(np.array(areas), tau)
    assert weights.sum() == pytest.approx(1)
    assert np.all(np.diff(weights[np.argsort(areas, kind="stable")]) >= -1e-12)


def test_all_images_at_once_are_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    image, areas = rng.permutation(np.repeat(np.arange(20), 3)), rng.integers(0, 5000, 60)
    probs = rng.dirichlet(np.ones(4), 60)
    merged = merge_images(image, probs, areas, 50)
    for i in range(20):
        mine = image == i
        assert merged[i] == pytest.approx(merge_regions(probs[mine], merge_weights(areas[mine], 50)), abs=1e-6)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("average", [0.5, 0.5, 0.5, 0.5]), ("area", [0.25, 0.75, 0.5, 0.5]), ("score", [0.8, 0.2, 0.5, 0.5])],
)
def test_the_other_rules_of_table_vii(rule: Rule, expected: list[float]) -> None:
    areas, scores = np.array([100, 300, 0, 0]), np.array([0.8, 0.2, 0.0, 0.0])
    merged = merge_images(np.array([0, 0, 1, 1]), np.eye(4), areas, 100, rule, scores)
    assert merged[[0, 0, 1, 1], range(4)] == pytest.approx(expected)


def test_no_regions_make_no_images() -> None:
    assert merge_images(np.zeros(0, int), np.zeros((0, 3)), np.zeros(0), 50).shape == (0, 3)


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(ValueError, match="image 1 of 3 has no region"):
        merge_images(np.array([0, 2]), np.eye(2), np.ones(2), 50)
    with pytest.raises(ValueError, match="requires the scores"):
        merge_weights(np.ones(2), 50, "score")


def test_probabilities_of_many_heads_and_of_extreme_logits() -> None:
    logits = np.random.default_rng(0).uniform(-1, 1, (4, 10, 7)).astype(np.float32)
    probs = novel_probs(logits, 2, temperature=1e-3)
    assert probs.shape == (4, 10, 5)
    assert probs.sum(axis=-1) == pytest.approx(np.ones((4, 10)), abs=1e-6)
    assert (probs.argmax(axis=-1) == logits[..., 2:].argmax(axis=-1)).all()
