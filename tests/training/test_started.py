"""Trainings that start at given classes: prototypes, sizes, partners, and which regions are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from ancd_ray.config.sections import TrainConfig
from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder
from ancd_ray.discovery.anomalyncd.learner import Learner
from ancd_ray.discovery.anomalyncd.loop import History, train
from ancd_ray.discovery.objectives.base import Epoch
from ancd_ray.discovery.objectives.started import Start, Started
from tests.training.views import SyntheticViews, TinyBackbone


def _start(source: SyntheticViews, used: list[int], n_base: int = 0, **keys: Any) -> Started:
    """Start at the true classes of some regions, each linked to all others of its class."""
    config = TrainConfig.model_validate({"epochs": 6, "batch_size": 16, "checkpoint_every": 1000, **keys})
    cls_M = source.truth_N[used] - n_base
    same_MM = (cls_M[:, None] == cls_M) & ~np.eye(len(cls_M), dtype=bool)
    links_MM = csr_matrix(same_MM / np.maximum(same_MM.sum(axis=1, keepdims=True), 1))
    start = Start([source.region_ids[row] for row in used], cls_M, links_MM)
    return Started(config, Classes(("x", "y")[:n_base], 3, has_normal=False), start)


def _train(objective: Started, source: SyntheticViews, folder: Path) -> tuple[Learner, History]:
    return train(source, TinyBackbone(), objective, Folder(str(folder)))  # type: ignore[arg-type]


@pytest.mark.parametrize("n_base", [0, 2])
def test_classes_keep_the_sizes_and_the_order_that_they_start_from(tmp_path: Path, n_base: int) -> None:
    source = SyntheticViews(("x", "y")[:n_base], sizes=(30, 6, 4))
    novel = np.flatnonzero(source.truth_N >= n_base)
    objective = _start(source, [row for row in novel if row % 10], n_base)
    learner, history = _train(objective, source, tmp_path)
    with torch.inference_mode():
        logits_HNC = learner.eval()(source.load(novel, np.full((1, len(novel)), 7, np.int64))).logits_H2BC
    assert np.mean(logits_HNC[0, :, n_base:].argmax(dim=1).numpy() == source.truth_N[novel] - n_base) > 0.95
    assert history.terms["reg"][-1] < 0.2  # equal sizes are a divergence of .5 away


def test_second_views_are_of_linked_regions_and_only_main_ones_are_drawn() -> None:
    source = SyntheticViews((), sizes=(4, 3, 3))
    objective = _start(source, [1, 2, 3, 4, 5, 9])
    assert np.flatnonzero(objective.choose_drawn(source)).tolist() == [1, 2, 3, 4, 5, 9]
    regions_B = np.repeat(np.arange(10), 200)
    partner_B = objective.choose_partners(regions_B, np.random.default_rng(0))
    drawn = {region: set(partner_B[regions_B == region].tolist()) for region in range(10)}
    linked = {1: {1, 2, 3}, 2: {1, 2, 3}, 3: {1, 2, 3}, 4: {4, 5}, 5: {4, 5}}
    assert drawn == {region: linked.get(region, {region}) for region in range(10)}
    assert 0.4 < np.mean(partner_B[regions_B == 1] == 1) < 0.6


def test_a_class_without_regions_keeps_its_prototypes_and_a_small_size(tmp_path: Path) -> None:
    source = SyntheticViews((), sizes=(30, 10))
    objective = _start(source, list(range(40)), epochs=2)
    assert objective.sizes == pytest.approx((30 / 41, 10 / 41, 1 / 41))
    _, history = _train(objective, source, tmp_path)
    assert np.isfinite(history.terms["total"]).all()


def test_the_base_set_is_drawn_and_has_prototypes() -> None:
    source = SyntheticViews(sizes=(12, 12, 12))
    objective = _start(source, list(range(24, 60)), n_base=2, epochs=1)
    assert objective.choose_drawn(source).all()
    learner = objective.make_learner(TinyBackbone())  # type: ignore[arg-type]
    before_HCD = learner.heads.weight_HCD.detach().clone()
    objective.prepare(learner, source, Epoch(0, 1))
    assert not torch.isclose(learner.heads.weight_HCD, before_HCD).all(dim=2).any()
    placed_HCD = learner.heads.weight_HCD.detach().clone()
    objective.prepare(learner, source, Epoch(1, 2))  # of a continued training
    assert torch.equal(learner.heads.weight_HCD, placed_HCD)
