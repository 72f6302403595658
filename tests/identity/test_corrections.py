"""What people say about regions, as labels of a classifier of references."""

from __future__ import annotations

import numpy as np
import pytest

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.classifiers import ReferenceClassifier, load_classifier
from ancd_ray.discovery.corrections import correct_classifier
from ancd_ray.discovery.features.calibration import Calibration
from ancd_ray.discovery.features.region_features import one_hot
from ancd_ray.discovery.novelty import Novelty

SIDE = 6  # regions of each of two clusters
FEATURES = np.concatenate(
    [np.random.default_rng(0).normal(center, 0.1, (SIDE, 3)) for center in ([0, 0, 1], [0, 1, 0])]
).astype(np.float32)
CLS = np.repeat([0, 1], SIDE)
IDS = [f"r{row}" for row in range(2 * SIDE)]
FOUND = dict(zip(IDS, CLS.tolist(), strict=True))
KNOWN = {region: f"tile-c{index}" for region, index in FOUND.items()}


@pytest.fixture
def classifier() -> ReferenceClassifier:
    calibration = Calibration.fit(FEATURES, [3])
    novelty = Novelty.fit(FEATURES, CLS, calibration, seed=0)
    classes = Classes((), 2, has_normal=False)
    return ReferenceClassifier(classes, "0" * 64, calibration, FEATURES, one_hot(CLS, 2), None, "ward", novelty)


def _correct(
    classifier: ReferenceClassifier, given: dict[str, str], known: dict[str, str]
) -> tuple[ReferenceClassifier, dict[str, int]]:
    here = [region for region in given if region in IDS]
    rows = [IDS.index(region) for region in here]
    others = {region: own for region, own in known.items() if region not in given}
    changed, values = correct_classifier(classifier, given, here, FEATURES[rows], FOUND, others, "tile-normal")
    assert values["corrections"] == {"given": len(given), "found": len(here)}
    return changed, values["corrected"]


def _classify(classifier: ReferenceClassifier, features: np.ndarray = FEATURES) -> list[int]:
    return classifier.predict(features, None).probs_NK.argmax(axis=1).tolist()


def test_a_region_gets_the_class_that_others_say_its_cluster_is(classifier: ReferenceClassifier) -> None:
    """Most regions that a person has named lie in cluster 0, and their class is cluster 1 all the same."""
    changed, indices = _correct(classifier, dict.fromkeys(IDS[:4], "tile-c1"), KNOWN)
    assert indices == {"tile-c1": 1}
    assert _classify(changed) == [1] * 4 + [0] * 2 + [1] * SIDE
    assert changed.classes.n_novel == 2
    assert _classify(load_classifier(changed.save().__getitem__)) == _classify(changed)  # type: ignore[arg-type]


def test_regions_that_are_put_apart_are_a_further_class(classifier: ReferenceClassifier) -> None:
    changed, indices = _correct(classifier, dict.fromkeys(["r0", "r7"], "tile-c9"), KNOWN)
    assert indices == {"tile-c9": 2}
    assert _classify(changed) == [2, 0, 0, 0, 0, 0, 1, 2, 1, 1, 1, 1]
    nearby = FEATURES[[0, 7]] + np.float32(1e-3)
    assert _classify(changed, nearby) == [2, 2], "so are new regions that are nearest to them"
    assert changed.predict(FEATURES, None).probs_NK.sum(axis=1) == pytest.approx(1)


def test_a_cluster_that_nobody_knows_is_what_people_call_its_regions(classifier: ReferenceClassifier) -> None:
    known = {region: own for region, own in KNOWN.items() if own == "tile-c0"}
    changed, indices = _correct(classifier, {"r6": "tile-c5", "r7": "tile-c5", "gone": "tile-c5"}, known)
    assert indices == {"tile-c5": 1}
    assert _classify(changed) == CLS.tolist()


def test_without_any_corrected_region_nothing_changes(classifier: ReferenceClassifier) -> None:
    changed, indices = _correct(classifier, {"gone": "tile-c0"}, KNOWN)
    assert changed is classifier
    assert indices == {}
