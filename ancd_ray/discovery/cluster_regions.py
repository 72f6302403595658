"""Makes a `ReferenceClassifier` by clustering frozen features of regions, optionally without normal images.

Only the main region of each image is clustered (`main_regions.py`). The classifier gives the others the vote of the
nearest main regions.

Shape suffixes: N regions, M references, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.class_tree import ClassTree
from ancd_ray.discovery.classifiers import (
    REJECT,
    VOTES,
    Probs,
    ReferenceClassifier,
    put_normal_first,
    single_class,
)
from ancd_ray.discovery.clusterings import CLUSTERINGS, READ, TAKE_WEIGHTS, TREES
from ancd_ray.discovery.clusterings.dendrogram import Nested
from ancd_ray.discovery.features.calibration import Calibration, Floats
from ancd_ray.discovery.features.region_features import Features, RegionFeatures, Scales, average_features, one_hot
from ancd_ray.discovery.image_scores import ImageScores
from ancd_ray.discovery.main_regions import choose_main_regions
from ancd_ray.discovery.micro_clusters import find_micro_clusters
from ancd_ray.discovery.normal_curve import NormalCurve
from ancd_ray.discovery.novelty import Novelty
from ancd_ray.engine.context import StageError

MAX_REGIONS = 4000  # regions, or means of micro-clusters, that are clustered: all pairwise distances are computed
_MAX_MEASURED = 8000  # regions of which references for novelty are chosen
_MAX_IN_MEMORY = 2**20  # regions whose features are in memory at a time, in single precision


class Clustered(NamedTuple):
    """What was clustered: M regions or their means, with their probabilities, and nested classes."""

    regions: RegionFeatures
    probs_MK: Probs
    nested: Nested | None = None


def cluster_regions(
    novel: Features,
    base: RegionFeatures | None,
    method: str,
    classes: Classes,
    seed: int,
    backbone_digest: str,
    scores: ImageScores | None = None,
    max_classes: int = 0,
) -> ReferenceClassifier:
    """Cluster the main region of each image into the novel classes, or all regions of fewer images than classes.

    Of more than `MAX_REGIONS`, the means of micro-clusters are clustered, weighted by their numbers of regions, or, by
    methods without weights, a random sample. Methods on averaged views cluster those that have views.

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
    max_classes
        The number of classes up to which their tree is kept, if they are nested; at least that of `classes`.

    Raises
    ------
    StageError
        Fewer regions have the views that the method reads than there are classes.
    """
    scales, normal, rows = Scales(novel), None, np.arange(len(novel))
    if classes.has_normal and scores is not None:
        normal = NormalCurve.fit(scores.images_IF, scores.reference_MF)
        rest = rows[normal.predict(scores.of_regions_NF) < REJECT]
        found = _cluster_rest(novel, scales, rest, base, method, classes.n_novel - 1, seed)
    else:
        rows = _choose(novel, rows, method, classes.n_novel)
        if len(rows) < classes.n_novel:
            raise StageError(f"{len(rows)} regions with views cannot be {classes.n_novel} classes; lower classes.novel")
        found = _cluster(novel, scales, rows, base, method, classes.n_novel, seed)
    tree, probs_MK = _order_classes(found, classes, max_classes, is_normal_told=normal is not None)
    averages_views = "views" in READ.get(method, ())
    if averages_views:
        calibration, references_MD = _make_references(found.regions, novel)
    else:
        calibration, references_MD = scales.masked, found.regions.masked_ND
    classifier = ReferenceClassifier(
        classes,
        backbone_digest,
        calibration,
        np.asarray(references_MD, np.float32),
        probs_MK,
        normal,
        method,
        Novelty.empty(calibration),
        VOTES if found.regions.weight_N is None else 1,  # a mean of many regions speaks for those around it
        tree=tree,
        feature="ringed" if averages_views else "masked",
    )
    return replace(classifier, novelty=_fit_novelty(classifier, novel, scores, seed))


def _order_classes(
    found: Clustered, classes: Classes, max_classes: int, is_normal_told: bool
) -> tuple[ClassTree | None, Probs]:
    """Return the tree of nested classes, and the probabilities (M, K), of which the normal class is the first."""
    regions, has_normal = found.regions, classes.has_normal and not is_normal_told
    if found.nested:
        n_leaves = max(max_classes, classes.n_novel) - is_normal_told
        tree = ClassTree.of(found.nested, n_leaves, regions.score_N, regions.weight_N, has_normal)
        tree = tree.cut(found.probs_MK.shape[1])
        return tree, tree.probs_MK
    if has_normal:
        return None, put_normal_first(found.probs_MK, regions.score_N, regions.weight_N)
    return None, found.probs_MK


def _make_references(clustered: RegionFeatures, novel: Features) -> tuple[Calibration, Floats]:
    """Return calibration and features of regions of which averages over views were clustered.

    They are features of the clean view, whitened in the same way: regions that are classified have no other.
    """
    assert clustered.ringed_ND is not None
    if not len(clustered):
        return Calibration.fit_blocks(lambda: novel.read("ringed"), novel.widths), clustered.ringed_ND
    return replace(clustered.whitening, mean_D=clustered.ringed_ND.mean(axis=0, dtype=np.float64)), clustered.ringed_ND


def _fit_novelty(found: ReferenceClassifier, novel: Features, scores: ImageScores | None, seed: int) -> Novelty:
    """Choose references for novelty among all regions, or a sample of very many."""
    rows = np.arange(len(novel))
    if len(rows) > _MAX_MEASURED:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAX_MEASURED, replace=False))
    frozen_ND = np.concatenate(list(novel.read(found.feature, rows)))
    cls_N = found.predict_probs(frozen_ND, scores.of_regions_NF[rows] if scores else None).argmax(axis=1)
    return Novelty.fit(frozen_ND, cls_N, found.calibration, seed)


def _cluster(
    novel: Features,
    scales: Scales,
    rows_R: NDArray[np.int64],
    base: RegionFeatures | None,
    method: str,
    n_classes: int,
    seed: int,
) -> Clustered:
    """Cluster the regions `rows_R`."""
    names = READ.get(method, ("masked",))
    if len(rows_R) <= MAX_REGIONS:
        some = novel.take(rows_R, names)
    elif method in TAKE_WEIGHTS:
        some = _condense(novel, scales, rows_R, names, seed)
    else:
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows_R), MAX_REGIONS, replace=False))
        some = novel.take(rows_R[chosen], names)
    if method in TREES:
        nested = TREES[method](some, base, n_classes, seed)
        return Clustered(some, nested.cut(n_classes), nested)
    if n_classes == 1:
        return Clustered(some, single_class(len(some)))
    return Clustered(some, CLUSTERINGS[method](some, base, n_classes, seed))


def _choose(novel: Features, rows_R: NDArray[np.int64], method: str, n_classes: int) -> NDArray[np.int64]:
    """Choose those of the regions `rows_R` that are clustered."""
    main = rows_R
    if novel.image_N is not None and novel.area_N is not None:
        main = rows_R[choose_main_regions(novel.image_N[rows_R], novel.area_N[rows_R], novel.score_N[rows_R])]
    if "views" in READ.get(method, ()):
        main, rows_R = main[novel.has_views_N[main]], rows_R[novel.has_views_N[rows_R]]
    return rows_R if len(main) < n_classes else main


def _cluster_rest(
    novel: Features,
    scales: Scales,
    rest: NDArray[np.int64],
    base: RegionFeatures | None,
    method: str,
    n_classes: int,
    seed: int,
) -> Clustered:
    """Cluster only the regions `rest`; the result is empty if there are no regions or no classes left."""
    names, rest = READ.get(method, ("masked",)), _choose(novel, rest, method, n_classes)
    if not n_classes or not len(rest):
        return Clustered(novel.take(rest[:0], names), np.zeros((0, max(n_classes, 0)), np.float32))
    if n_classes >= len(rest):
        return Clustered(novel.take(rest, names), one_hot(np.zeros(len(rest), np.int64), n_classes))
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
