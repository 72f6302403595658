"""Features of averaged views, whitening, and the tree of `spectral`, each against what it is meant to do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from ancd_ray.discovery.clusterings import algorithms, spectral
from ancd_ray.discovery.features.region_features import RegionFeatures, decode_views
from ancd_ray.discovery.features.ring import subtract_rings
from ancd_ray.discovery.features.viewed import N_VIEWS, Symmetry, Viewed
from ancd_ray.discovery.features.views import make_fixed_views
from ancd_ray.discovery.features.whitening import average_views, fit_whitening
from ancd_ray.method.metrics import cluster_scores
from ancd_ray.method.rings import find_rings

CLS = np.arange(80) % 2


def test_a_ring_is_around_the_mask_and_does_not_touch_it() -> None:
    mask = torch.zeros(2, 224, 224)
    mask[0, 100:120, 100:120] = 1
    ring, none = find_rings(mask)
    assert ring.shape == (56, 56)
    assert ring[24:31, 24:31].sum() == 0  # the mask's cells 25 to 29, and one around
    assert ring[21, 27] == ring[33, 27] == ring[27, 21] == ring[27, 33] == 1
    assert ring[:18].sum() == 0
    assert none.sum() == 0


def test_a_share_of_the_ring_is_subtracted() -> None:
    averages = np.array([[[3.0, 2.0], [2.0, 4.0]]])
    assert subtract_rings(averages, 0.5).tolist() == [[2.0, 0.0]]
    assert subtract_rings(averages, 0).tolist() == [[3.0, 2.0]]


@pytest.mark.parametrize(("symmetry", "count"), N_VIEWS.items())
def test_fixed_views_are_turns_and_scales_of_image_and_mask(symmetry: Symmetry, count: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    mask[40:90, 60:200] = 255
    views = make_fixed_views(image, mask, 224, 32, symmetry)
    assert len(views) == count
    assert [len(each) for each, _ in views[-4:]] == [160, 192, 256, 288]
    turned = views[:-4]
    assert len({each.tobytes() for each, _ in turned}) == len(turned)
    assert all((mask > 0).sum() == (turned[0][1] > 0).sum() for _, mask in turned)
    assert all(each[mask > 0].sum() == turned[0][0][turned[0][1] > 0].sum() for each, mask in turned)
    assert views[-4][0].mean() == pytest.approx(0.8 * image.mean(), abs=2)


def test_regions_that_may_be_clustered_have_views() -> None:
    ids = [f"{image * 2**26:08x}" for image in range(64) for _ in range(2)]
    names = [f"{image_id}-{number % 2:03d}" for number, image_id in enumerate(ids)]
    area, score = np.tile([5, 9], 64), np.tile([1.0, 0.5], 64)
    regions = pa.table({"region_id": names, "image_id": ids, "area": area, "score": score})
    assert Viewed("square", is_main=True, share=1.0).find(regions) == set(names[::2])  # 5 x 1 against 9 x .5
    assert Viewed("square", is_main=False, share=2.0).find(regions) == set(names)
    some = Viewed("square", is_main=True, share=0.25).find(regions)
    assert len(some) == 16
    assert some < set(names[::2])
    assert Viewed("square", is_main=True, share=1.0).find(regions.slice(0, 0)) == set()


def test_views_of_regions_that_have_none_are_nan() -> None:
    views = np.arange(12, dtype=np.float16).reshape(3, 2, 2)
    found = decode_views([None, views.tobytes()], 2)
    assert np.isnan(found[0]).all()
    assert np.array_equal(found[1], views)


def _views(rng: np.random.Generator) -> np.ndarray:
    """Views of two classes that differ a little in one direction, and between their views much in another one."""
    values = 0.1 * rng.normal(size=(80, 1, 4)) + np.array([0.8, 0, 0, 0]) * (CLS[:, None, None] - 0.5)
    shift = np.array([0, 2.0, 0, 0]) * rng.normal(size=(80, 5, 1))
    inside = values + shift + 0.02 * rng.normal(size=(80, 5, 4))
    return np.stack([inside, np.zeros_like(inside)], axis=2)


def test_whitening_removes_what_differs_between_views() -> None:
    views = _views(np.random.default_rng(0))
    calibration = fit_whitening(views, [4], ridge=0.01)
    whitened = calibration.apply(average_views(views))
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1)
    assert cluster_scores(CLS, algorithms.ward(whitened, 2)).ari > 0.9
    assert cluster_scores(CLS, algorithms.ward(average_views(views), 2)).ari < 0.3


def test_equal_views_leave_the_features_as_they_are() -> None:
    values = np.random.default_rng(0).normal(size=(9, 1, 1, 4)).repeat(3, axis=1).repeat(2, axis=2)
    calibration = fit_whitening(values, [1, 3])
    assert np.array_equal(calibration.whitening_DD, np.eye(4))


def _rings(n_each: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two long classes, one around the other, which have the same mean."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 2 * n_each)
    radius = np.repeat([1.0, 3.0], n_each) + 0.05 * rng.normal(size=2 * n_each)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), np.repeat([0, 1], n_each)


def test_classes_are_followed_however_long_they_are() -> None:
    points, cls = _rings()
    found = spectral.cluster_by_diffusion(spectral.link_neighbors(points)).cut(2)
    assert cluster_scores(cls, found).ari == 1
    assert cluster_scores(cls, algorithms.ward(points, 2)).ari < 0.3


def test_one_tree_has_every_number_of_classes() -> None:
    points, _ = _rings()
    tree = spectral.cluster_by_diffusion(spectral.link_neighbors(points))
    for n_classes in (2, 5, 9):
        coarse, fine = tree.cut(n_classes), tree.cut(n_classes + 1)
        assert len(set(zip(coarse, fine, strict=True))) == n_classes + 1  # nested


@pytest.mark.parametrize("n_regions", [2, 3, 6])
@pytest.mark.parametrize("are_equal", [False, True])
def test_few_or_equal_regions_are_clustered(n_regions: int, are_equal: bool) -> None:
    rng = np.random.default_rng(0)
    views = rng.normal(size=(1 if are_equal else n_regions, 3, 2, 4)).astype(np.float16)
    views = np.repeat(views, n_regions // len(views), axis=0)
    none = np.zeros((n_regions, 0))
    novel = RegionFeatures(none, none, none, none, np.ones(n_regions), (4,), views_NV2D=views)
    probs = spectral.tree(novel, None, 2, 0).cut(2)
    assert probs.shape == (n_regions, 2)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
