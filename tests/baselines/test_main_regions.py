"""Only the main region of an image is clustered; the others get the classes of the main regions they resemble."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ancd_ray.data.roles import Classes
from ancd_ray.discovery.cluster_regions import cluster_regions
from ancd_ray.discovery.features.region_features import RegionFeatures

N_IMAGES = 40
IMAGE = np.concatenate([np.arange(N_IMAGES), np.arange(N_IMAGES)])  # a defect and a speck each
CLS = np.arange(N_IMAGES) % 2


def _regions() -> RegionFeatures:
    """Two classes of defects that are near each other, each with a speck far from both."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0, 0], [2, 0, 0]])
    defects = centres[CLS] + 0.2 * rng.normal(size=(N_IMAGES, 3))
    specks = centres[CLS] * 0.6 + [0, 30, 0] + 0.2 * rng.normal(size=(N_IMAGES, 3))
    values = np.concatenate([defects, specks])
    area = np.concatenate([np.full(N_IMAGES, 100), np.full(N_IMAGES, 90)])
    score = np.concatenate([np.full(N_IMAGES, 0.9), np.full(N_IMAGES, 0.8)])
    return RegionFeatures(values, values, values, np.zeros((len(values), 1)), score, (3,), image_N=IMAGE, area_N=area)


def _classify(novel: RegionFeatures, n_classes: int = 2) -> tuple[np.ndarray, int]:
    found = cluster_regions(novel, None, "ward", Classes((), n_classes, False), 0, "digest")
    return found.predict(novel.masked_ND, None).probs_NK.argmax(axis=1), len(found.references_MD)


def test_specks_beside_the_defects_do_not_become_a_class() -> None:
    cls, n_references = _classify(_regions())
    assert n_references == N_IMAGES
    assert len(set(zip(CLS, cls[:N_IMAGES], strict=True))) == 2
    assert set(cls[N_IMAGES:]) <= {0, 1}
    every, n_references = _classify(replace(_regions(), image_N=None))
    assert n_references == 2 * N_IMAGES
    assert len(set(every[:N_IMAGES])) == 1  # defects against specks


def test_the_score_counts_beside_the_area() -> None:
    novel = _regions()
    swapped = replace(novel, score_N=1 - novel.score_N)
    found = cluster_regions(swapped, None, "ward", Classes((), 2, False), 0, "digest")
    assert (found.references_MD[:, 1] > 20).all()  # the specks: .2 x 90 against .1 x 100


def test_all_regions_of_fewer_images_than_classes_are_clustered() -> None:
    novel = _regions().take(np.flatnonzero(IMAGE < 3))
    cls, n_references = _classify(novel, n_classes=4)
    assert n_references == 6
    assert len(set(cls)) == 4
