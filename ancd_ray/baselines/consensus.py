"""Consensus of many clusterings of appearance and shape, see `ancd_ray.method.consensus`: ours, not a published one.

What a defect looks like is judged without the mean colour of its crop, with or without its contrast: the colour of
the part is not what is wrong with it, and whether contrast tells classes apart depends on the product. Both looks are
tried; the one whose classes come apart more clearly stands, by their mean silhouette. No label is looked at.
"""

from __future__ import annotations

from ancd_ray.baselines.described import Described, Probs
from ancd_ray.method import consensus
from ancd_ray.method.clustering import calibrated
from ancd_ray.method.metrics import silhouette
from ancd_ray.method.shape import standardised


def classes(novel: Described, base: Described | None, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K)."""
    shape_NS = standardised(novel.shape_NS)
    best, clearest = None, -1.0
    for look_ND in (novel.centred_ND, novel.standardised_ND):
        appearance_ND = calibrated(look_ND, novel.widths)
        probs_NK = consensus.consensus(appearance_ND, shape_NS, n_classes, seed)
        clear = silhouette(appearance_ND, probs_NK.argmax(axis=1), seed)
        if best is None or (clear is not None and clear > clearest):
            best, clearest = probs_NK, -1.0 if clear is None else clear
    assert best is not None, "there are two looks"
    return best
