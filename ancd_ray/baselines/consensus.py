"""Consensus of many clusterings of appearance and shape, see `ancd_ray.method.consensus`: ours, not a published one."""

from __future__ import annotations

from ancd_ray.baselines.described import Described, Probs
from ancd_ray.method import consensus
from ancd_ray.method.clustering import calibrated, steady
from ancd_ray.method.shape import standardised


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K); without a view bank, appearance alone is looked at as it is."""
    appearances = [novel.appearance_ND]
    if novel.views_VND is not None:
        whitened_ND = steady(novel.token_ND, novel.views_VND)
        appearances.append(calibrated(whitened_ND, (whitened_ND.shape[1],)))
    return consensus.consensus(appearances, standardised(novel.shape_NS), n_classes, seed)
