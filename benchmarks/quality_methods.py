"""Methods that `quality.py` compares: those of the product, and `spectral` with single parts exchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ancd_ray.config.sections import MergeConfig
from ancd_ray.data.roles import Classes
from ancd_ray.discovery.cluster_regions import cluster_regions
from ancd_ray.discovery.clusterings import algorithms
from ancd_ray.discovery.clusterings.spectral import TIME, cluster_by_diffusion, link_neighbors
from ancd_ray.discovery.features.calibration import Calibration, Floats
from ancd_ray.discovery.features.region_features import RegionFeatures
from ancd_ray.discovery.features.ring import RING
from ancd_ray.discovery.features.whitening import average_views, fit_whitening
from ancd_ray.discovery.image_scores import ImageScores
from ancd_ray.discovery.main_regions import choose_main_regions
from ancd_ray.method.merging import merge_images

Labels = NDArray[np.int64]
# Views of the symmetry `square`: rotations, mirrored ones, and other scales.
ROTATIONS, MIRRORED, SCALES = [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]
VIEWS = [*ROTATIONS, *SCALES]  # of the default symmetry


class Sample(NamedTuple):
    """Regions of I images in the order of their indices, the labels of these, with maps the scores of all, and ids."""

    regions: RegionFeatures
    label_I: NDArray[np.str_]
    scores: ImageScores | None = None
    region_ids: NDArray[np.str_] | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes that are labeled."""
        return len(np.unique(self.label_I))

    @property
    def main(self) -> Labels:
        """Rows of the main regions, by image."""
        regions = self.regions
        assert regions.image_N is not None
        assert regions.area_N is not None
        rows = choose_main_regions(regions.image_N, regions.area_N, regions.score_N)
        return rows[np.argsort(regions.image_N[rows])]


Method = Callable[[Sample], Labels]


def _discover(method: str, *, centred: bool = False, every: bool = False, merged: bool = False) -> Method:
    """Make the method that a job has.

    Parameters
    ----------
    method
        `discovery.method`.
    centred
        Whether features are those of views without their mean color (`backbone.color_normalization: centred`).
    every
        Whether all regions are clustered instead of the main ones.
    merged
        Whether the class of an image is merged of those of all its regions, instead of that of the main one.
    """

    def find(sample: Sample) -> Labels:
        regions, looks_at_scores = sample.regions, sample.scores is not None
        assert regions.views_NV2D is not None
        some = replace(regions, views_NV2D=regions.views_NV2D[:, VIEWS])
        some = replace(some, masked_ND=regions.centred_ND) if centred else some
        clustered = replace(some, image_N=None, area_N=None) if every else some
        classes = Classes((), sample.n_classes, has_normal=looks_at_scores)
        scores = sample.scores if method in ("linked", "spectral") else None
        found = cluster_regions(clustered, None, method, classes, 0, "", scores)
        probs_NK = found.predict(
            getattr(some, f"{found.feature}_ND"), None if scores is None else scores.of_regions_NF
        ).probs_NK
        if not merged:
            return np.asarray(probs_NK[sample.main].argmax(axis=1))
        assert regions.image_N is not None
        assert regions.area_N is not None
        rule = MergeConfig()
        merged_IK = merge_images(
            regions.image_N, probs_NK, regions.area_N, rule.tau_alpha, rule.rule, np.asarray(regions.score_N)
        )
        return np.asarray(merged_IK.argmax(axis=1))

    return find


def _spectral(
    *,
    share: float = RING,
    views: Sequence[int] = VIEWS,
    ridge: float | None = 0.3,
    cluster: Callable[[Floats, int], Labels] | None = None,
    time: float = TIME,
) -> Method:
    """Make `spectral` with another share of the ring, views, ridge (None: not whitened), clustering, or time."""

    def find(sample: Sample) -> Labels:
        some = sample.regions.take(sample.main)
        assert some.views_NV2D is not None
        views_NV2D = some.views_NV2D[:, views]
        averages_ND = average_views(views_NV2D, share)
        if ridge is None:
            features_ND = Calibration.fit(averages_ND, some.widths).apply(averages_ND)
            features_ND /= np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)
        else:
            features_ND = fit_whitening(views_NV2D, some.widths, share, ridge).apply(averages_ND)
        if cluster:
            return cluster(features_ND, sample.n_classes)
        return cluster_by_diffusion(link_neighbors(features_ND), time).cut(sample.n_classes)

    return find


BASELINE = "ward, centred"
METHODS: dict[str, Method] = {
    "ward, centred, all regions": _discover("ward", centred=True, every=True),
    BASELINE: _discover("ward", centred=True),
    "ward": _discover("ward"),
    "kmeans": _discover("kmeans"),
    "gmm": _discover("gmm"),
    "anomaly_clustering": _discover("anomaly_clustering"),
    "uniformaly": _discover("uniformaly"),
    "linked, all regions": _discover("linked", every=True),
    "linked": _discover("linked"),
    "spectral": _discover("spectral"),
}
ABLATION: dict[str, Method] = {
    BASELINE: _discover("ward", centred=True),
    "spectral": _spectral(),
    "images by merging": _discover("spectral", merged=True),
    "ring 0": _spectral(share=0),
    "ring .25": _spectral(share=0.25),
    "ring .75": _spectral(share=0.75),
    "one view": _spectral(views=[0], ridge=None),
    "not whitened": _spectral(ridge=None),
    "ridge .1": _spectral(ridge=0.1),
    "ridge 1": _spectral(ridge=1.0),
    "symmetry: square": _spectral(views=[*ROTATIONS, *MIRRORED, *SCALES]),
    "symmetry: none": _spectral(views=[0, *SCALES]),
    "no scales": _spectral(views=ROTATIONS),
    "time 4": _spectral(time=4),
    "time 6": _spectral(time=6),
    "time 12": _spectral(time=12),
    "ward for diffusion": _spectral(cluster=algorithms.ward),
    "kmeans for diffusion": _spectral(cluster=algorithms.kmeans),
}
