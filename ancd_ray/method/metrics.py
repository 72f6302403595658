"""Metrics (Sections IV-A, IV-B): agreement of clusters and labels, detection of normal images, anomaly maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, roc_auc_score, silhouette_score

Floats = NDArray[np.floating[Any]]
BINS = 1024  # bins of the histograms of `MapCurve`


@dataclass(frozen=True)
class ClusterScores:
    """NMI (arithmetic mean), ARI and micro F1 after Hungarian matching (= clustering accuracy) of n samples."""

    nmi: float
    ari: float
    f1: float
    n: int


def cluster_scores(labels: NDArray[Any], clusters: NDArray[Any]) -> ClusterScores:
    """Compare clusters (N,) with labels (N,).

    Raises
    ------
    ValueError
        There are no samples.
    """
    if not len(labels):
        raise ValueError("no samples to compare clusters and labels")
    counts = confusion(labels, clusters)[2]
    hits = int(counts[linear_sum_assignment(counts, maximize=True)].sum())
    nmi = float(normalized_mutual_info_score(labels, clusters, average_method="arithmetic"))
    return ClusterScores(nmi, float(adjusted_rand_score(labels, clusters)), hits / len(labels), len(labels))


def confusion(labels: NDArray[Any], clusters: NDArray[Any]) -> tuple[list[Any], list[Any], NDArray[np.int64]]:
    """Compute the confusion matrix of labels and clusters.

    Returns
    -------
    labels, clusters : list
        Distinct values that occur, sorted.
    counts : ndarray
        Number of samples of each label (rows) in each cluster (columns).
    """
    rows, row = np.unique(labels, return_inverse=True)
    columns, column = np.unique(clusters, return_inverse=True)
    counts = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(counts, (row, column), 1)
    return rows.tolist(), columns.tolist(), counts


def hungarian_match(labels: NDArray[Any], clusters: NDArray[Any]) -> dict[Any, Any]:
    """Match clusters with labels one to one, so that most samples agree.

    Returns
    -------
    dict
        Label of each matched cluster; clusters beyond the number of labels are missing.
    """
    rows, columns, counts = confusion(labels, clusters)
    chosen_rows, chosen_columns = linear_sum_assignment(counts, maximize=True)
    return {columns[column]: rows[row] for row, column in zip(chosen_rows, chosen_columns, strict=True)}


def normal_scores(is_normal: NDArray[np.bool_], predicted_normal: NDArray[np.bool_]) -> tuple[float, float]:
    """Compute precision and recall of the class "normal" (Table VIII).

    The precision is 0 if no image is predicted to be normal.
    """
    hits = int((is_normal & predicted_normal).sum())
    return hits / max(int(predicted_normal.sum()), 1), hits / max(int(is_normal.sum()), 1)


def auroc(is_anomalous: NDArray[np.bool_], scores: Floats) -> float | None:
    """Compute the area under the ROC curve of anomaly scores (N,); None if only one class occurs."""
    if is_anomalous.all() or not is_anomalous.any():
        return None
    return float(roc_auc_score(is_anomalous, scores))


def silhouette(tokens_ND: Floats, clusters: NDArray[Any], seed: int, max_n: int = 2000) -> float | None:
    """Compute the mean silhouette by cosine distance of (at most `max_n`) tokens; None if it is not defined."""
    if len(tokens_ND) > max_n:
        chosen = np.random.default_rng(seed).choice(len(tokens_ND), max_n, replace=False)
        tokens_ND, clusters = tokens_ND[chosen], clusters[chosen]
    if not 2 <= len(np.unique(clusters)) < len(clusters):
        return None
    return float(silhouette_score(tokens_ND, clusters, metric="cosine"))


class MaskOverlap(NamedTuple):
    """How a found mask compares with a drawn one."""

    iou: float  # intersection over union
    area_ratio: float  # found area over drawn area


def mask_overlap(found: NDArray[np.uint8], drawn: NDArray[np.uint8]) -> MaskOverlap:
    """Compare a found mask (H, W) with a drawn one of the same shape; both are 0 where nothing is.

    Raises
    ------
    ValueError
        The shapes differ, or the drawn mask is empty.
    """
    if found.shape != drawn.shape:
        raise ValueError(f"the found mask has shape {found.shape}, the drawn one {drawn.shape}")
    n_found, n_drawn = np.count_nonzero(found), np.count_nonzero(drawn)
    if not n_drawn:
        raise ValueError("the drawn mask is empty")
    n_both = np.count_nonzero((found > 0) & (drawn > 0))
    return MaskOverlap(n_both / (n_found + n_drawn - n_both), n_found / n_drawn)


@dataclass(eq=False)
class MapCurve:
    """ROC and PRO curves of anomaly maps, accumulated in histograms over [lo, hi], so that shards can be merged.

    Thresholds are the lower edges of the bins; both metrics are exact up to the width of a bin. PRO, per-region
    overlap, is the mean over the components of all masks of the fraction of a component above the threshold: every
    component adds a histogram with sum 1.

    Parameters
    ----------
    lo, hi
        Range of the histograms.
    normal
        Number of pixels outside of defects per bin.
    anomalous
        Number of pixels of defects per bin.
    overlap
        Sum of the histograms of the components.
    components
        Number of components.
    """

    lo: float
    hi: float
    normal: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    anomalous: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    overlap: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    components: int = 0

    def add(self, values: NDArray[Any], mask: NDArray[np.uint8], inside: NDArray[np.bool_] | None = None) -> None:
        """Add a map (h, w) and its mask of the same shape, 0 where normal; values are clipped to [lo, hi].

        Only pixels `inside` (h, w) a region of interest count, if there is one.

        Raises
        ------
        ValueError
            The shapes differ, or a value is not finite.
        """
        if values.shape != mask.shape:
            raise ValueError(f"the map has shape {values.shape}, its mask {mask.shape}")
        if not np.isfinite(values).all():
            raise ValueError("the anomaly map has values that are not finite")
        bins = np.clip((values - self.lo) / (self.hi - self.lo) * BINS, 0, BINS - 1).astype(np.int64)
        drawn = mask > 0
        is_normal = ~drawn
        if inside is not None:
            drawn, is_normal = drawn & inside, is_normal & inside
        count, labels = cv2.connectedComponents(drawn.astype(np.uint8), connectivity=8)
        self.normal += np.bincount(bins[is_normal], minlength=BINS)
        self.anomalous += np.bincount(bins[drawn], minlength=BINS)
        sizes = np.bincount(labels[drawn], minlength=count)
        self.overlap += np.bincount(bins[drawn], 1 / sizes[labels[drawn]], minlength=BINS)
        self.components += count - 1

    def merge(self, other: MapCurve) -> None:
        """Add the counts of another curve over the same range."""
        assert (self.lo, self.hi) == (other.lo, other.hi), "histograms of different ranges cannot be merged"
        self.normal += other.normal
        self.anomalous += other.anomalous
        self.overlap += other.overlap
        self.components += other.components

    def pixel_auroc(self) -> float | None:
        """Compute the area under the ROC curve over all pixels; None if only one class occurs."""
        if not self.normal.sum() or not self.anomalous.sum():
            return None
        return float(trapezoid(_above(self.anomalous), _above(self.normal)))

    def aupro(self, max_fpr: float = 0.3) -> float | None:
        """Compute the area under the per-region overlap curve up to the false positive rate `max_fpr`, divided by it.

        None if there are no normal pixels or no components.
        """
        if not self.normal.sum() or not self.components:
            return None
        fpr, pro = self._cut_pro(max_fpr)
        return float(trapezoid(pro, fpr) / max_fpr)

    def pro_curve(self, max_fpr: float = 0.3, max_points: int = 60) -> tuple[Floats, Floats] | None:
        """Compute the per-region overlap curve up to the false positive rate `max_fpr`.

        Of many thresholds, those are chosen that divide the length of the curve evenly.

        Returns
        -------
        tuple of ndarray
            False positive rates and overlaps (at most `max_points` each), both from 0 on and increasing. None if there
            are no normal pixels or no components.
        """
        if not self.normal.sum() or not self.components:
            return None
        fpr, pro = self._cut_pro(max_fpr)
        way = np.append(0.0, np.cumsum(np.hypot(np.diff(fpr) / max_fpr, np.diff(pro))))
        kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], max_points)))
        return fpr[kept], pro[kept]

    def _cut_pro(self, max_fpr: float) -> tuple[Floats, Floats]:
        """Compute all points of the per-region overlap curve up to `max_fpr`, and the one there."""
        fpr, pro = _above(self.normal), _above(self.overlap)
        inside = fpr < max_fpr
        return np.append(fpr[inside], max_fpr), np.append(pro[inside], np.interp(max_fpr, fpr, pro))

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-compatible values."""
        arrays = {name: getattr(self, name).tolist() for name in ("normal", "anomalous", "overlap")}
        return {"lo": self.lo, "hi": self.hi, "components": self.components, **arrays}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> MapCurve:
        """Create a curve from the result of `to_dict`."""
        arrays = {name: np.array(document[name]) for name in ("normal", "anomalous", "overlap")}
        return cls(document["lo"], document["hi"], components=document["components"], **arrays)


def _above(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the fraction of a histogram in the highest k bins, k = 0 … all."""
    return np.append(0.0, np.cumsum(histogram[::-1])) / float(histogram.sum())
