"""The figures of a setting, and the criterion that needs no labels."""

from __future__ import annotations

import numpy as np
import pytest

from ancd_ray.config.sections import MergeConfig
from ancd_ray.discovery.criterion import asha_objective
from ancd_ray.jobs.sweep.trial import Regions


def _regions(labelled: bool) -> Regions:
    """Twelve images with a large region of its class and two small ones of another."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(12), 3)
    cls = np.where(np.arange(36) % 3 == 0, image % 3, (image + 1) % 3)
    probs = np.full((36, 3), 0.2, np.float32)
    probs[np.arange(36), cls] = 0.6
    areas = np.where(np.arange(36) % 3 == 0, 40_000, 100)
    features = np.eye(3)[cls] + rng.normal(0, 0.05, (36, 3))
    labels = np.array([f"kind {i % 3}" if labelled else None for i in range(12)], dtype=object)
    return Regions(image, labels, probs, areas, np.ones(36, np.float32), np.ones(36, bool), features)


def test_merging_settings_change_the_figures() -> None:
    regions = _regions(labelled=True)
    largest = regions.figures(MergeConfig(tau_alpha=10))
    assert largest["nmi"] == pytest.approx(1)
    assert largest["f1"] == pytest.approx(1)
    votes = regions.figures(
        MergeConfig(rule="average")
    )  # two small regions outvote the large one: every class is shifted
    assert votes["f1"] == pytest.approx(1)
    assert votes["unsupervised"] != largest["unsupervised"]


def test_without_labels_only_the_criterion_is_there() -> None:
    figures = _regions(labelled=False).figures(MergeConfig())
    assert figures["nmi"] is figures["ari"] is figures["f1"] is None
    assert figures["unsupervised"] is not None


def test_vague_classes_are_vaguer() -> None:
    assert (
        asha_objective(cls_u=0.2, reg=0.01) < asha_objective(cls_u=1.2, reg=0.01) < asha_objective(cls_u=1.2, reg=1.0)
    )
