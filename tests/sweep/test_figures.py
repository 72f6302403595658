"""The figures of a setting, and the criterion that needs no labels."""

from __future__ import annotations

import numpy as np
import pytest

from ancd_ray.config import Merge
from ancd_ray.method.criterion import unsupervised, vagueness
from ancd_ray.method.metrics import cluster_scores
from ancd_ray.sweep.trial import Regions


def _regions(labelled: bool) -> Regions:
    """Twelve images with a large region of its class and two small ones of another."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(12), 3)
    cls = np.where(np.arange(36) % 3 == 0, image % 3, (image + 1) % 3)
    probs = np.full((36, 3), 0.2, np.float32)
    probs[np.arange(36), cls] = 0.6
    areas = np.where(np.arange(36) % 3 == 0, 40_000, 100)
    tokens = (np.eye(3)[cls] + rng.normal(0, 0.05, (36, 3))).astype(np.float32)
    labels = np.array([f"kind {i % 3}" if labelled else None for i in range(12)], dtype=object)
    heads = np.stack([cls, cls], axis=1).astype(np.int32)
    return Regions(image, labels, probs, areas, np.ones(36, np.float32), tokens, heads)


def test_merging_settings_change_the_figures() -> None:
    regions = _regions(labelled=True)
    largest = regions.figures(Merge(tau_alpha=10))
    assert largest["nmi"] == pytest.approx(1)
    assert largest["f1"] == pytest.approx(1)
    votes = regions.figures(Merge(rule="average"))  # two small regions outvote the large one: every class is shifted
    assert votes["f1"] == pytest.approx(1)
    assert votes["unsupervised"] != largest["unsupervised"]


def test_without_labels_only_the_criterion_is_there() -> None:
    figures = _regions(labelled=False).figures(Merge())
    assert figures["nmi"] is figures["ari"] is figures["f1"] is None
    assert figures["unsupervised"] is not None


def test_the_criterion_prefers_classes_to_none() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 20)
    tokens = np.eye(3)[truth] + rng.normal(0, 0.1, (60, 3))
    sure = np.full(60, 0.9)
    good = unsupervised(tokens, truth, sure, np.stack([truth, truth]))
    noise = rng.permutation(truth)
    bad = unsupervised(tokens, noise, np.full(60, 0.5), np.stack([noise, rng.permutation(truth)]))
    one = unsupervised(tokens, np.zeros(60, int), np.ones(60), np.zeros((2, 60), int))
    assert good > one > bad
    assert cluster_scores(truth, truth).nmi == 1


def test_vague_classes_are_vaguer() -> None:
    assert vagueness(cls_u=0.2, reg=0.01) < vagueness(cls_u=1.2, reg=0.01) < vagueness(cls_u=1.2, reg=1.0)
