"""Region merging (Section III-D): from probabilities of regions to probabilities of images.

Shape suffixes: K regions of an image, N regions of all images, C classes.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Rule = Literal["paper", "average", "score", "area"]  # rows of Table VII; "area" is linear in the area


def novel_probs(logits_NC: Floats, n_base: int, temperature: float = 0.1) -> NDArray[np.float32]:
    """Compute probabilities (..., C − n_base) of the novel classes: softmax of their cosine logits / temperature."""
    scaled = logits_NC[..., n_base:].astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def merge_weights(
    areas_K: NDArray[Any], tau_alpha: float, rule: Rule = "paper", scores_K: Floats | None = None
) -> NDArray[np.float64]:
    """Compute the weights α (K,) of the regions of one image, which sum to 1 (eq. 10).

    α_k = softmax_k(√a_k / τ_α) for the rule `paper`; see `merge_images` for the parameters.
    """
    return _weights(np.zeros(len(areas_K), np.int64), areas_K, tau_alpha, rule, scores_K)


def merge_regions(probs_KC: Floats, weights_K: Floats) -> NDArray[np.float32]:
    """Merge the probabilities of the regions of one image: p = Σ_k α_k p_k, (C,)."""
    return np.asarray(np.asarray(weights_K, np.float64) @ probs_KC, np.float32)


def merge_images(
    image_N: NDArray[np.integer[Any]],
    probs_NC: Floats,
    areas_N: NDArray[Any],
    tau_alpha: float,
    rule: Rule = "paper",
    scores_N: Floats | None = None,
) -> NDArray[np.float32]:
    """Merge the probabilities of the regions of every image: p = Σ_k α_k p_k (Section III-D).

    Parameters
    ----------
    image_N
        Index of each region's image, in any order; every image up to the largest index has a region.
    probs_NC
        Probabilities of the regions.
    areas_N
        Anomalous pixels a of the regions, at original resolution.
    tau_alpha
        τ_α of eq. 10, in pixels of length.
    rule
        `paper` is eq. 10, `average` equal weights, `score` and `area` weights proportional to the score or the area
        (equal if all of an image are 0).
    scores_N
        Anomaly scores ≥ 0 of the regions, for the rule `score`.

    Returns
    -------
    ndarray
        Probabilities of the images, (images, C), float32.

    Raises
    ------
    ValueError
        An image has no region, or the scores are missing.
    """
    weights_N = _weights(image_N, areas_N, tau_alpha, rule, scores_N)
    order = np.argsort(image_N, kind="stable")
    starts = np.flatnonzero(np.diff(image_N[order], prepend=-1))
    weighted_NC = weights_N[order, None] * probs_NC[order]
    return np.asarray(np.add.reduceat(weighted_NC, starts, axis=0), np.float32)


def find_main_regions(
    image_N: NDArray[np.integer[Any]],
    areas_N: NDArray[Any],
    tau_alpha: float,
    rule: Rule = "paper",
    scores_N: Floats | None = None,
) -> NDArray[np.int64]:
    """Find the row of the region that weighs most in each image, of equal ones the first; see `merge_images`."""
    weights_N = _weights(image_N, areas_N, tau_alpha, rule, scores_N)
    order = np.lexsort((-weights_N, image_N))
    return order[np.flatnonzero(np.diff(image_N[order], prepend=-1))]


def _weights(
    image_N: NDArray[np.integer[Any]], areas_N: NDArray[Any], tau_alpha: float, rule: Rule, scores_N: Floats | None
) -> NDArray[np.float64]:
    """Compute the weights of the regions, which sum to 1 within each image."""
    counts = np.bincount(image_N)
    if not counts.all():
        raise ValueError(f"image {int(counts.argmin())} of {len(counts)} has no region to merge")
    if rule == "paper":
        logits_N = np.sqrt(areas_N) / tau_alpha
        highest = np.full(len(counts), -np.inf)
        np.maximum.at(highest, image_N, logits_N)  # subtracted to avoid overflow in exp
        shares_N = np.exp(logits_N - highest[image_N])
    elif rule == "average":
        shares_N = np.ones(len(image_N))
    elif rule == "area":
        shares_N = np.asarray(areas_N, np.float64)
    elif scores_N is None:
        raise ValueError("merging by score requires the scores of the regions")
    else:
        shares_N = np.asarray(scores_N, np.float64)
    sums = np.bincount(image_N, shares_N)[image_N]
    return np.asarray(np.divide(shares_N, sums, out=1 / counts[image_N], where=sums > 0), np.float64)
