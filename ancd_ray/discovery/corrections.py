"""What people say about single regions, as labels of a discovery.

A region that a person has put into a class keeps that class, and so does what is nearest to it. The class is one that
the discovery has found again, or else a further one: so regions that were put together are together, and those that
were put apart are apart, whatever the clusters. Which cluster a class is, the other regions of the class decide; where
it has none, those that people have put into it.

Shape suffixes: C corrected regions, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ancd_ray.discovery.classifiers import HeadsClassifier, ReferenceClassifier
from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.discovery.features.region_features import StoredFeatures
from ancd_ray.discovery.image_scores import ImageScores
from ancd_ray.discovery.matching import match_by_regions
from ancd_ray.engine.artifacts import Table

C = TypeVar("C", HeadsClassifier, ReferenceClassifier)
MAX_KNOWN = 4000  # regions by which known classes are found again


def correct_classifier(
    classifier: C,
    given: Mapping[str, str],
    region_ids: Sequence[str],
    features_CD: Floats,
    found: Mapping[str, int],
    known: Mapping[str, str],
    normal_id: str,
) -> tuple[C, dict[str, Any]]:
    """Give regions the classes that people have put them into.

    Parameters
    ----------
    classifier
        Classifier of the discovery.
    given
        Id of the class by region id, of all regions that people have put into one.
    region_ids
        Those of them that the discovery has.
    features_CD
        Their frozen features, in which novelty is measured.
    found
        Index of the class of regions by the discovery, by region id; not all regions need to be there.
    known
        Id of the class of other regions before, by region id.
    normal_id
        Id of the normal class.

    Returns
    -------
    classifier : C
        The classifier, with further classes for those that the discovery has not found.
    values : dict
        `corrected` has the index of each class that people have put regions into, by its id; `corrections` the numbers
        of regions that were given a class, and of those that are there.
    """
    numbers = {"given": len(given), "found": len(region_ids)}
    if not region_ids:
        return classifier, {"corrected": {}, "corrections": numbers}
    n_classes, has_normal = classifier.classes.n_novel, classifier.classes.has_normal
    corrected = {region: given[region] for region in region_ids}
    defects = {region: index for region, index in found.items() if index or not has_normal}
    indices = _find_classes(corrected, defects, known, normal_id, n_classes) | ({normal_id: 0} if has_normal else {})
    wanted = sorted(set(corrected.values()))
    added = [class_id for class_id in wanted if class_id not in indices]
    indices |= {class_id: n_classes + i for i, class_id in enumerate(added)}
    cls_C = np.array([indices[class_id] for class_id in corrected.values()], np.int64)
    changed = replace(
        classifier,
        classes=replace(classifier.classes, n_novel=n_classes + len(added)),
        novelty=classifier.novelty.correct(features_CD, cls_C),
        n_added=classifier.n_added + len(added),
    )
    if isinstance(changed, ReferenceClassifier):
        changed = changed.correct_references(features_CD, cls_C)
    return changed, {"corrected": {class_id: indices[class_id] for class_id in wanted}, "corrections": numbers}


def choose_known(known: Mapping[str, str], region_ids: Sequence[str]) -> list[str]:
    """Choose the regions that say which clusters the known classes are, in equal numbers from each class.

    A rare class has them as well: without, what people put into it would be a further class.

    Parameters
    ----------
    known
        Id of the class of regions before, by region id; those that people have corrected are not among them.
    region_ids
        The regions of the discovery.

    Returns
    -------
    At most `MAX_KNOWN` of them, but at least one of each class.
    """
    of_class: dict[str, list[str]] = {}
    for region in region_ids:
        if region in known:
            of_class.setdefault(known[region], []).append(region)
    most = max(1, MAX_KNOWN // max(len(of_class), 1))
    return [
        own[i]
        for own in of_class.values()
        for i in np.unique(np.linspace(0, len(own) - 1, min(most, len(own))).astype(int))
    ]


def correct_clustered(
    classifier: ReferenceClassifier,
    features: Table,
    scores: ImageScores | None,
    given: Mapping[str, str],
    known: Mapping[str, str],
    normal_id: str,
) -> tuple[ReferenceClassifier, dict[str, Any]]:
    """Give regions of a table `features` the classes that people have put them into, as `correct_classifier` does.

    Without such regions nothing is read, and nothing returned beside the classifier.
    """
    if not given:
        return classifier, {}
    ids = features.read(["region_id"]).column("region_id").to_pylist()
    here = [row for row, region in enumerate(ids) if region in given]
    known = {region: own for region, own in known.items() if region not in given}
    chosen = set(choose_known(known, ids))
    others = [row for row, region in enumerate(ids) if region in chosen]
    rows = np.array(sorted([*here, *others]), np.int64)
    frozen_ND = np.concatenate(list(StoredFeatures(features).read(classifier.feature, rows)))
    found_N = classifier.predict_probs(frozen_ND, scores.of_regions_NF[rows] if scores else None).argmax(axis=1)
    found = {ids[row]: int(index) for row, index in zip(rows, found_N, strict=True)}
    own_CD = frozen_ND[np.isin(rows, here)]
    return correct_classifier(classifier, given, [ids[row] for row in here], own_CD, found, known, normal_id)


def _find_classes(
    corrected: Mapping[str, str],
    found: Mapping[str, int],
    known: Mapping[str, str],
    normal_id: str,
    n_classes: int,
) -> dict[str, int]:
    """Find the index of classes of defects: by regions that nobody has corrected, and what is left by the others."""
    others = {region: index for region, index in found.items() if region not in corrected}
    by_others = match_by_regions(others, known, sorted(set(known.values()) - {normal_id}), n_classes)
    rest = {region: index for region, index in found.items() if region in corrected and index not in by_others}
    left = sorted(set(corrected.values()) - {normal_id, *by_others.values()})
    matched = {**match_by_regions(rest, corrected, left, n_classes), **by_others}
    return {class_id: index for index, class_id in matched.items()}
