"""Makes a `ReferenceClassifier` by clustering frozen features of regions, optionally without normal images.

Shape suffixes: N regions, M references, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.classifiers import REJECT, Probs, ReferenceClassifier, put_normal_first, single_class
from ancd_ray.discovery.clusterings import CLUSTERINGS
from ancd_ray.discovery.features.calibration import Calibration, Floats
from ancd_ray.discovery.features.region_features import RegionFeatures, one_hot
from ancd_ray.discovery.normal_curve import NormalCurve

MAX_REGIONS = 4000  # clustered at most, since all pairwise distances are computed; others are classified by vote


class ImageScores(NamedTuple):
    """Anomaly scores of all images, of each region's image, and of normal images that are known to be (None: none)."""

    images: Floats
    of_regions_N: Floats
    reference: Floats | None = None


def cluster_regions(
    novel: RegionFeatures,
    base: RegionFeatures | None,
    method: str,
    classes: Classes,
    seed: int,
    backbone_digest: str,
    scores: ImageScores | None = None,
) -> ReferenceClassifier:
    """Cluster regions into the novel classes.

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
    calibration = Calibration.fit(novel.masked_ND, novel.widths)
    normal = None
    if classes.has_normal and scores is not None:
        normal = NormalCurve.fit(scores.images, scores.reference)
        rest = np.flatnonzero(normal.predict(scores.of_regions_N) < REJECT)
        rows_M, probs_MK = _cluster_rest(novel, rest, base, method, classes.n_novel - 1, seed)
    else:
        rows_M, probs_MK = _cluster(novel, base, method, classes.n_novel, seed)
        if classes.has_normal:
            probs_MK = put_normal_first(probs_MK, novel.score_N[rows_M])
    references_MD = np.asarray(novel.masked_ND[rows_M], np.float32)
    return ReferenceClassifier(classes, backbone_digest, calibration, references_MD, probs_MK, normal, method)


def _cluster(
    novel: RegionFeatures, base: RegionFeatures | None, method: str, n_classes: int, seed: int
) -> tuple[NDArray[np.int64], Probs]:
    """Cluster regions; returns the rows (M,) of those that were clustered, and their probabilities (M, K)."""
    rows_M = np.arange(len(novel))
    if len(novel) > MAX_REGIONS:
        rows_M = np.sort(np.random.default_rng(seed).choice(len(novel), MAX_REGIONS, replace=False))
    if n_classes == 1:
        return rows_M, single_class(len(rows_M))
    return rows_M, CLUSTERINGS[method](novel.take(rows_M), base, n_classes, seed)


def _cluster_rest(
    novel: RegionFeatures, rest: NDArray[np.int64], base: RegionFeatures | None, method: str, n_classes: int, seed: int
) -> tuple[NDArray[np.int64], Probs]:
    """Cluster only the regions `rest`; the result is empty if there are no regions or no classes left."""
    if not n_classes or not len(rest):
        return rest[:0], np.zeros((0, max(n_classes, 0)), np.float32)
    if n_classes >= len(rest):
        return rest, one_hot(np.zeros(len(rest), np.int64), n_classes)
    rows_M, probs_MK = _cluster(novel.take(rest), base, method, n_classes, seed)
    return rest[rows_M], probs_MK
