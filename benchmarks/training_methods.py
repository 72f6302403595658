"""Rows of `training.py`: trainings with switches, and what is made of their heads.

Shape suffixes: N regions, H heads, K classes, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from quality_methods import Labels
from training_loop import BAG, Problem, Switches, Trained

from ancd_ray.discovery.clusterings.dendrogram import Dendrogram
from ancd_ray.discovery.clusterings.spectral import cluster_by_diffusion, link_neighbors
from ancd_ray.discovery.criterion import mean_silhouette
from ancd_ray.discovery.features.calibration import Floats

_FLOOR = 0.05  # weight of a link between regions that no clustering puts together
_N_SAMPLES = 16
Decide = Callable[[Problem, Trained], Labels]
_STARTED = Switches(start="classes", sizes="classes", near=0.5, epochs=15)
_SAMPLED = Switches(start="samples", sizes="classes", heads=16, epochs=15)


def select_head(problem: Problem, trained: Trained, *, views: str = "clean") -> Labels:
    """Take the head whose classes have the highest silhouette in frozen features, as the package does."""
    probs_HNK = trained.clean_HNK if views == "clean" else trained.mean_HNK
    cls_HN = probs_HNK.argmax(axis=2)
    return np.asarray(max(cls_HN, key=lambda cls_N: mean_silhouette(problem.comparison_ND, cls_N)), np.int64)


def select_by_loss(problem: Problem, trained: Trained) -> Labels:  # noqa: ARG001
    """Take the head with the smallest clustering loss, as the paper does."""
    return np.asarray(trained.clean_HNK[int(np.argmin(trained.loss_H))].argmax(axis=1), np.int64)


def join(
    problem: Problem, trained: Trained, *, graph: str = "predictions", frozen: bool = True, weigh: str = "samples"
) -> Labels:
    """Cluster by `spectral` on a graph that trained heads have a part in.

    Parameters
    ----------
    problem, trained
        What is clustered, and what was trained on it.
    graph
        Nearest neighbors in `predictions` of all heads (roots of probabilities, averaged over views), in the
        trained `embedding`, or in neither (`none`).
    frozen
        Whether links in frozen features are added.
    weigh
        Links are weighted by the share of clusterings of `samples` or of `heads` that join both regions, or not.
    """
    links_NN = normalize(problem.links_NN) if frozen else np.zeros_like(problem.links_NN)
    if graph == "predictions":
        features_ND = _scale(np.sqrt(np.concatenate(list(trained.mean_HNK), axis=1)))
        links_NN = links_NN + normalize(link_neighbors(features_ND))
    elif graph == "embedding":
        features_ND = _scale(trained.embedding_ND)
        links_NN = links_NN + normalize(link_neighbors(_scale(features_ND - features_ND.mean(axis=0))))
    if weigh == "samples":
        links_NN = links_NN * (_FLOOR + associate_samples(problem))
    elif weigh == "heads":
        links_NN = links_NN * (_FLOOR + associate_heads(trained))
    return cluster_by_diffusion(links_NN).cut(problem.n_classes)


def associate_heads(trained: Trained) -> Floats:
    """Compute the share (N, N) of the heads that join two regions."""
    cls_HN = trained.mean_HNK.argmax(axis=2)
    return np.mean([cls_N[:, None] == cls_N for cls_N in cls_HN], axis=0)


def associate_samples(problem: Problem, n_samples: int = _N_SAMPLES, share: float = BAG) -> Floats:
    """Compute the share (N, N) of clusterings of samples that join two regions, of those that see both."""
    n_regions = len(problem.cls_N)
    together_NN, both_NN = np.zeros((n_regions, n_regions)), np.zeros((n_regions, n_regions))
    rng = np.random.default_rng(0)
    for _ in range(n_samples):
        rows = np.sort(rng.permutation(n_regions)[: round(share * n_regions)])
        cls = cluster_by_diffusion(link_neighbors(problem.whitened_ND[rows])).cut(problem.n_classes)
        together_NN[np.ix_(rows, rows)] += cls[:, None] == cls
        both_NN[np.ix_(rows, rows)] += 1
    return np.asarray(together_NN / np.maximum(both_NN, 1))


def normalize(links_NN: Floats) -> Floats:
    """Divide links by the roots of the degrees of both regions."""
    degree_N = links_NN.sum(axis=1)
    return np.asarray(links_NN / np.sqrt(degree_N[:, None] * degree_N))


def cluster_associations(problem: Problem, trained: Trained) -> Labels:
    """Apply Ward's algorithm to the rows of the co-association of heads."""
    return Dendrogram.of_points(associate_heads(trained)).cut(problem.n_classes)


def _scale(features_ND: Floats) -> Floats:
    return np.asarray(features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12))


def cluster_frozen(problem: Problem, trained: Trained | None, *, weigh: bool = False) -> Labels:  # noqa: ARG001
    """Cluster by `spectral`, or with its links weighted by clusterings of samples."""
    links_NN = problem.links_NN * (_FLOOR + associate_samples(problem)) if weigh else problem.links_NN
    return cluster_by_diffusion(links_NN).cut(problem.n_classes)


_RINGED = replace(_STARTED, tokens="ringed")
_SUBTRACTED = replace(_STARTED, tokens="subtracted")
_UNTRAINED = replace(_SUBTRACTED, whiten=True, near=0.0, epochs=0)
ROWS: dict[str, tuple[Switches | None, Decide]] = {
    "spectral": (None, cluster_frozen),
    "the paper's training, 50 epochs": (Switches(), select_head),
    "— the head of the smallest loss": (Switches(), select_by_loss),
    "— 16 heads": (Switches(heads=16), select_head),
    "sizes, 15 epochs, as all below": (Switches(sizes="classes", epochs=15), select_head),
    "prototypes": (Switches(start="classes", epochs=15), select_head),
    "prototypes, no entropy term": (Switches(start="classes", sizes="none", epochs=15), select_head),
    "prototypes, sizes": (replace(_STARTED, near=0.0), select_head),
    "prototypes, sizes, neighbors": (_STARTED, select_head),
    "prototypes, sizes, neighbors, base set": (replace(_STARTED, base=True), select_head),
    "**prototypes, sizes, neighbors, ring** (`anomalyncd`)": (_RINGED, select_head),
    "— 50 epochs": (replace(_RINGED, epochs=50), select_head),
    "— all views vote": (_RINGED, partial(select_head, views="all")),
    "— the ring taken off all tokens": (_SUBTRACTED, select_head),
    "—— and whitened": (replace(_SUBTRACTED, whiten=True), select_head),
    "—— no neighbors": (replace(_SUBTRACTED, whiten=True, near=0.0), select_head),
    "—— not trained": (_UNTRAINED, select_head),
    "16 heads from clusterings of samples": (_SAMPLED, select_head),
    "— not trained": (replace(_SAMPLED, epochs=0), select_head),
    "— co-association of heads, Ward": (_SAMPLED, cluster_associations),
    "— spectral, links weighted by it": (_SAMPLED, partial(join, graph="none", weigh="heads")),
    "— one graph of spectral and their predictions": (_SAMPLED, partial(join, weigh="none")),
    "—— weighted by the clusterings of samples": (_SAMPLED, join),
    "—— the same, not trained": (replace(_SAMPLED, epochs=0), join),
    "one graph of spectral and of trained embeddings": (
        replace(_SUBTRACTED, whiten=True),
        partial(join, graph="embedding", weigh="none"),
    ),
    "— not trained embeddings": (_UNTRAINED, partial(join, graph="embedding", weigh="none")),
    "spectral, links weighted by clusterings of samples": (None, partial(cluster_frozen, weigh=True)),
}
