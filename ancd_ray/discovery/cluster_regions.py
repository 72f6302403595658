"""Makes a `ReferenceClassifier` by clustering frozen features of regions, optionally without normal images.

Only the main region of each image is clustered: specks and splinters beside it distort any clustering. The classifier
gives the others the vote of the nearest main regions.

Shape suffixes: N regions, M references, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.classifiers import (
    REJECT,
    VOTES,
    Probs,
    ReferenceClassifier,
    put_normal_first,
    single_class,
)
from ancd_ray.discovery.clusterings import CLUSTERINGS, READ, TAKE_WEIGHTS
from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.discovery.features.region_features import Features, RegionFeatures, Scales, average_features, one_hot
from ancd_ray.discovery.micro_clusters import find_micro_clusters
from ancd_ray.discovery.normal_curve import NormalCurve
from ancd_ray.discovery.novelty import Novelty
from ancd_ray.method.merging import find_main_regions

MAX_REGIONS = 4000  # regions, or means of micro-clusters, that are clustered: all pairwise distances are computed
_MAX_MEASURED = 8000  # regions of which references for novelty are chosen
_MAX_IN_MEMORY = 2**20  # regions whose features are in memory at a time, in single precision


class ImageScores(NamedTuple):
    """Anomaly scores of all images, of each region's image, and of normal images that are known to be (None: none)."""

    images: Floats
    of_regions_N: Floats
    reference: Floats | None = None


def cluster_regions(
    novel: Features,
    base: RegionFeatures | None,
    method: str,
    classes: Classes,
    seed: int,
    backbone_digest: str,
    scores: ImageScores | None = None,
) -> ReferenceClassifier:
    """Cluster the main region of each image into the novel classes, or all regions of fewer images than classes.

    The main region has the largest product of score and area. Of more than `MAX_REGIONS`, the means of micro-clusters
    are clustered, weighted by their numbers of regions, or, by methods without weights, a random sample.

    Parameters
    ----------
    novel
        Features of the regions.
    base
        Features of the labeled base set, for methods that use it.
    method
        A name in `CLUSTERINGS`.
    classes
        The classes to find.
    seed
        Random seed.
    backbone_digest
        Digest of the backbone that computed the features.
    scores
        Anomaly scores. If given and there is a normal class, images are classified as normal by their scores, and only
        regions of the other images are clustered.
    """
    scales, normal = Scales(novel), None
    if classes.has_normal and scores is not None:
        normal = NormalCurve.fit(scores.images, scores.reference)
        rest = np.flatnonzero(normal.predict(scores.of_regions_N) < REJECT)
        clustered, probs_MK = _cluster_rest(novel, scales, rest, base, method, classes.n_novel - 1, seed)
    else:
        clustered, probs_MK = _cluster(novel, scales, np.arange(len(novel)), base, method, classes.n_novel, seed)
        if classes.has_normal:
            probs_MK = put_normal_first(probs_MK, clustered.score_N, clustered.weight_N)
    found = ReferenceClassifier(
        classes,
        backbone_digest,
        scales.masked,
        np.asarray(clustered.masked_ND, np.float32),
        probs_MK,
        normal,
        method,
        Novelty.empty(scales.masked),
        VOTES if clustered.weight_N is None else 1,  # a mean of many regions speaks for those around it
    )
    return replace(found, novelty=_fit_novelty(found, novel, scores, seed))


def _fit_novelty(found: ReferenceClassifier, novel: Features, scores: ImageScores | None, seed: int) -> Novelty:
    """Choose references for novelty among all regions, or a sample of very many."""
    rows = np.arange(len(novel))
    if len(rows) > _MAX_MEASURED:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAX_MEASURED, replace=False))
    masked_ND = novel.take(rows, ("masked",)).masked_ND
    cls_N = found.predict_probs(masked_ND, scores.of_regions_N[rows] if scores else None).argmax(axis=1)
    return Novelty.fit(masked_ND, cls_N, found.calibration, seed)


def _cluster(
    novel: Features,
    scales: Scales,
    rows_R: NDArray[np.int64],
    base: RegionFeatures | None,
    method: str,
    n_classes: int,
    seed: int,
) -> tuple[RegionFeatures, Probs]:
    """Cluster the main ones of the regions `rows_R`.

    Returns
    -------
    What was clustered, M regions or their means, and probabilities (M, K).
    """
    names, rows_R = READ.get(method, ("masked",)), _choose_main(novel, rows_R, n_classes)
    if len(rows_R) <= MAX_REGIONS:
        some = novel.take(rows_R, names)
    elif method in TAKE_WEIGHTS:
        some = _condense(novel, scales, rows_R, names, seed)
    else:
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows_R), MAX_REGIONS, replace=False))
        some = novel.take(rows_R[chosen], names)
    if n_classes == 1:
        return some, single_class(len(some))
    return some, CLUSTERINGS[method](some, base, n_classes, seed)


def _choose_main(novel: Features, rows_R: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Choose the main region of each image among `rows_R`, or all of them for fewer images than classes."""
    if novel.image_N is None or novel.area_N is None:
        return rows_R
    image_R = np.unique(novel.image_N[rows_R], return_inverse=True)[1]
    main = find_main_regions(image_R, novel.area_N[rows_R] * novel.score_N[rows_R], tau_alpha=1, rule="area")
    return rows_R if len(main) < n_classes else np.sort(rows_R[main])


def _cluster_rest(
    novel: Features,
    scales: Scales,
    rest: NDArray[np.int64],
    base: RegionFeatures | None,
    method: str,
    n_classes: int,
    seed: int,
) -> tuple[RegionFeatures, Probs]:
    """Cluster only the regions `rest`; the result is empty if there are no regions or no classes left."""
    if not n_classes or not len(rest):
        return novel.take(rest[:0]), np.zeros((0, max(n_classes, 0)), np.float32)
    if n_classes >= len(rest):
        return novel.take(rest), one_hot(np.zeros(len(rest), np.int64), n_classes)
    return _cluster(novel, scales, rest, base, method, n_classes, seed)


def _condense(
    novel: Features, scales: Scales, rows_R: NDArray[np.int64], names: Sequence[str], seed: int
) -> RegionFeatures:
    """Compute the means of micro-clusters, in the space of the clustering that reads the features `names`."""
    if len(rows_R) > _MAX_IN_MEMORY:
        rows_R = rows_R[np.linspace(0, len(rows_R) - 1, _MAX_IN_MEMORY).astype(int)]
    if "centred" in names:
        pairs = zip(novel.read("centred", rows_R), novel.read("shape", rows_R), strict=True)
        blocks = (scales.appearance_shape(centred_ND, shape_NS) for centred_ND, shape_NS in pairs)
    else:
        blocks = (scales.appearance(masked_ND) for masked_ND in novel.read("masked", rows_R))
    labels_R = find_micro_clusters(_stack(blocks, len(rows_R)), MAX_REGIONS, seed)
    return average_features(novel, rows_R, labels_R, names, scales)


def _stack(blocks: Iterable[Floats], n_rows: int) -> NDArray[np.float32]:
    """Stack blocks of rows in single precision; only one block is in memory twice."""
    stacked, start = np.empty((n_rows, 0), np.float32), 0
    for block_ND in blocks:
        if not start:
            stacked = np.empty((n_rows, block_ND.shape[1]), np.float32)
        stacked[start : start + len(block_ND)] = block_ND
        start += len(block_ND)
    return stacked
