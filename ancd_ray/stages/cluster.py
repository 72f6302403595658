"""Cluster: classes of regions from their frozen features, nothing is trained.

It leaves what training and classification together leave: `region_predictions`, and the values that tell of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.clusterings import BY_NAME
from ancd_ray.discovery.features.reading import counted, described, taken
from ancd_ray.discovery.features.region_features import Described, Floats, Probs, certain
from ancd_ray.discovery.normal_mixture import normal_probability
from ancd_ray.engine.context import Context, StageError
from ancd_ray.engine.outputs import Output, Result, write_part

MAX_REGIONS = 4000  # of which distances of all to all are taken; further ones go where their neighbours are
_VOTES = 5
_REJECT = 0.5  # probability of "normal" from which a region is not sorted further


def run(context: Context, method: str, classes: Classes, seed: int) -> Result:
    """The table `region_predictions`, cut into parts as the regions are.

    Raises:
        StageError: there are fewer regions than classes.
    """
    classes = counted(classes, context.inputs)
    source = context.inputs["describe"]
    novel = described(source)
    if len(novel) < classes.n_novel:
        raise StageError(
            f"product {context.product}: {len(novel)} regions cannot be {classes.n_novel} classes; lower classes.novel"
        )
    base = described(context.inputs["base"], labelled=True) if "base" in context.inputs else None
    if classes.has_normal and "detect" in context.inputs:
        image_ids = source.table("descriptors", ["image_id"]).column("image_id").to_pylist()
        normal_N = normal_regions(context.inputs["detect"], image_ids)
        probs_NK = with_normal(novel, base, method, classes.n_novel, seed, normal_N)
    else:
        probs_NK = clustered(novel, base, method, classes.n_novel, seed)
        if classes.has_normal:
            probs_NK = normal_first(probs_NK, novel.score_N)
    values = {
        "losses": {},
        "head_losses": [],
        "best_head": 0,
        "backbone_digest": source.values["backbone_digest"],
        "base_classes": list(classes.base_classes),
        "n_novel": classes.n_novel,
        "has_normal": classes.has_normal,
        "method": method,
    }
    return Result({"region_predictions": _parts(context, source, probs_NK)}, values)


def clustered(novel: Described, base: Described | None, method: str, n_classes: int, seed: int) -> Probs:
    """Probabilities (N, K) by a method; of very many regions a sample is clustered and the rest follows."""
    if n_classes == 1:
        return certain(np.zeros(len(novel), np.int64), 1)
    if len(novel) <= MAX_REGIONS:
        return BY_NAME[method](novel, base, n_classes, seed)
    chosen = np.sort(np.random.default_rng(seed).choice(len(novel), MAX_REGIONS, replace=False))
    probs_MK = BY_NAME[method](taken(novel, chosen), base, n_classes, seed)
    features_ND = novel.appearance_ND.astype(np.float32)
    return voted(features_ND, features_ND[chosen], probs_MK)


def normal_regions(maps: Output, image_ids: Sequence[str]) -> Floats:
    """Probability (N,) of each region's image to be normal, by the scores of all images."""
    table = maps.table("maps", ["image_id", "score"])
    probability = normal_probability(table.column("score").to_numpy())
    of_image = dict(zip(table.column("image_id").to_pylist(), probability, strict=True))
    return np.array([of_image[image_id] for image_id in image_ids])


def with_normal(
    novel: Described, base: Described | None, method: str, n_classes: int, seed: int, normal_N: Floats
) -> Probs:
    """Probabilities (N, K), the first class being "normal"; the method sorts the rest into the others."""
    probs_NK = np.zeros((len(novel), n_classes), np.float32)
    rest = np.flatnonzero(normal_N < _REJECT)
    probs_NK[:, 0] = np.where(normal_N < _REJECT, 0, normal_N)  # doubt among the others is no sign of being normal
    n_others = n_classes - 1
    if not n_others or not len(rest):
        probs_NK[:, 0] = 1.0
        return probs_NK
    others = certain(np.zeros(len(rest), np.int64), n_others)
    if n_others < len(rest):
        others = clustered(taken(novel, rest), base, method, n_others, seed)
    near_NK = voted(novel.appearance_ND, novel.appearance_ND[rest], others)
    near_NK[rest] = others
    probs_NK[:, 1:] = (1 - probs_NK[:, :1]) * near_NK
    return probs_NK


def voted(features_ND: Floats, known_MD: Floats, probs_MK: Probs) -> Probs:
    """Mean probabilities of the nearest known regions, for each region."""
    rows = []
    for block in np.array_split(features_ND, -(-len(features_ND) // 1024)):
        squared = np.square(known_MD).sum(axis=1) - 2 * block @ known_MD.T
        nearest = np.argsort(squared, axis=1)[:, :_VOTES]
        rows.append(probs_MK[nearest].mean(axis=1))
    return np.asarray(np.concatenate(rows), np.float32)


def normal_first(probs_NK: Probs, score_N: Floats) -> Probs:
    """The class with the lowest mean anomaly score comes first: it means "normal"."""
    cls_N = probs_NK.argmax(axis=1)
    means_K = [score_N[cls_N == k].mean() if (cls_N == k).any() else np.inf for k in range(probs_NK.shape[1])]
    normal = int(np.argmin(means_K))
    order = [normal, *(k for k in range(probs_NK.shape[1]) if k != normal)]
    return probs_NK[:, order]


def _parts(context: Context, source: Output, probs_NK: Probs) -> list[Any]:
    parts, start = [], 0
    for index, part in enumerate(source.parts("descriptors")):
        columns = ["region_id", "image_id", "product", "label", "area", "score", "masked"]
        rows = source.folder.read_table(part.file, columns).to_pylist()
        for row, probs in zip(rows, probs_NK[start : start + len(rows)], strict=True):
            cls = int(probs.argmax())
            row |= {"probs": probs.tolist(), "embedding": row.pop("masked"), "head_cls": [cls], "cls": cls}
            row["confidence"] = float(probs[cls])
        parts.append(write_part(context.folder, "region_predictions", index, rows))
        start += len(rows)
    return parts
