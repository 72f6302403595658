"""Consensus of several clusterings, as an alternative to `spectral`, and what each of its members is worth.

The co-association of two regions is the share of clusterings that put them into one class (Fred and Jain, 2005); Ward's
algorithm clusters its rows. The members are clusterings times features: with each share of the ring, averaged over the
views, and whitened or not.

Shape suffixes: N regions, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from quality_methods import BASELINE, METHODS, VIEWS, Labels, Method, Sample, _spectral
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from ancd_ray.discovery.clusterings.algorithms import ward
from ancd_ray.discovery.clusterings.spectral import cluster_by_diffusion, link_neighbors
from ancd_ray.discovery.features.calibration import Calibration, Floats
from ancd_ray.discovery.features.whitening import average_views, fit_whitening

_COMPONENTS = 16  # of the mixture of Gaussians
_SHARES = (0.0, 0.25, 0.5)
Member = tuple[str, str]  # clustering, features


def _average_linkage(features_ND: Floats, n_classes: int) -> Labels:
    return np.asarray(fcluster(linkage(pdist(features_ND, "cosine"), "average"), n_classes, "maxclust") - 1, np.int64)


def _kmeans(features_ND: Floats, n_classes: int) -> Labels:
    return np.asarray(KMeans(n_classes, n_init=8, random_state=0).fit_predict(features_ND), np.int64)


def _tied_mixture(features_ND: Floats, n_classes: int) -> Labels:
    """Cluster by Gaussians with one covariance, begun at the means of Ward's classes."""
    reduced_ND = PCA(min(_COMPONENTS, *features_ND.shape), svd_solver="full").fit_transform(features_ND)
    own_NK = np.eye(n_classes)[ward(features_ND, n_classes)]
    means_KD = own_NK.T @ reduced_ND / own_NK.sum(axis=0)[:, None]
    ridge = 1e-3 * reduced_ND.var(axis=0).mean()
    mixture = GaussianMixture(n_classes, covariance_type="tied", reg_covar=ridge, means_init=means_KD, random_state=0)
    return np.asarray(mixture.fit_predict(reduced_ND), np.int64)


def _diffusion(features_ND: Floats, n_classes: int) -> Labels:
    return cluster_by_diffusion(link_neighbors(features_ND)).cut(n_classes)


CLUSTERINGS: dict[str, Callable[[Floats, int], Labels]] = {
    "ward": ward,
    "average linkage": _average_linkage,
    "k-means": _kmeans,
    "tied mixture": _tied_mixture,
    "diffusion": _diffusion,
}


def _read_features(sample: Sample) -> dict[str, Floats]:
    """Compute the features (N, D) of the main regions."""
    some = sample.regions.take(sample.main)
    assert some.views_NV2D is not None
    views_NV2D = some.views_NV2D[:, VIEWS]
    found = {}
    for share in _SHARES:
        averages_ND = average_views(views_NV2D, share)
        plain_ND = Calibration.fit(averages_ND, some.widths).apply(averages_ND)
        found[f"ring {share}"] = plain_ND / np.maximum(np.linalg.norm(plain_ND, axis=1, keepdims=True), 1e-12)
        found[f"ring {share}, whitened"] = fit_whitening(views_NV2D, some.widths, share).apply(averages_ND)
    return found


FEATURES = [f"ring {share}{whitened}" for share in _SHARES for whitened in ("", ", whitened")]
MEMBERS = [(clustering, features) for clustering in CLUSTERINGS for features in FEATURES]


class _Clustered:
    """The labels of all members on one sample, which all rows of the table share."""

    def __init__(self) -> None:
        self._sample: Sample | None = None
        self._labels: dict[Member, Labels] = {}

    def find(self, sample: Sample) -> dict[Member, Labels]:
        """Cluster a sample, unless it was the last one."""
        if sample is not self._sample:
            features, k = _read_features(sample), sample.n_classes
            self._labels = {(name, of): CLUSTERINGS[name](features[of], k) for name, of in MEMBERS}
            self._sample = sample
        return self._labels


_CLUSTERED = _Clustered()


def _consensus(members: Collection[Member]) -> Method:
    def find(sample: Sample) -> Labels:
        labels = _CLUSTERED.find(sample)
        together_NN = np.mean([labels[each][:, None] == labels[each] for each in members], axis=0)
        return ward(together_NN, sample.n_classes)

    return find


def _mean_of_links(shares: Collection[float]) -> Method:
    """Make `spectral` on the mean of the links of features with several shares of the ring."""

    def find(sample: Sample) -> Labels:
        features = _read_features(sample)
        links_NN = np.mean([link_neighbors(features[f"ring {share}, whitened"]) for share in shares], axis=0)
        return cluster_by_diffusion(links_NN).cut(sample.n_classes)

    return find


CONSENSUS: dict[str, Method] = {
    BASELINE: METHODS[BASELINE],
    "spectral": _spectral(),
    "consensus": _consensus(MEMBERS),
    **{f"without {name}": _consensus([each for each in MEMBERS if each[0] != name]) for name in CLUSTERINGS},
    **{f"without {of}": _consensus([each for each in MEMBERS if each[1] != of]) for of in FEATURES},
    "diffusion alone": _consensus([each for each in MEMBERS if each[0] == "diffusion"]),
    "diffusion alone, whitened": _consensus([each for each in MEMBERS if each[0] == "diffusion" and "w" in each[1]]),
    "mean of the links, ring .25 and .5": _mean_of_links((0.25, 0.5)),
}
