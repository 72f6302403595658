"""The content of a run's report as plain values: the interface between the caller and `render`.

Metrics are None if they are not defined, for example if the archive has no labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.roles import describe_number
from ancd_ray.jobs.report.detector_model import DetectorReport

if TYPE_CHECKING:
    from ancd_ray.jobs.report.tree_model import TreeReport

EXAMPLES_PER_REASON = 20  # quarantined files listed per reason; the others are only counted
MOST_CERTAIN, LEAST_CERTAIN = 8, 4  # maximum number of regions shown per class
MAX_POINTS = 2000  # maximum number of regions on a map of class tokens; callers subsample
_POINTS_OF_ALL_MAPS = 12_000


@dataclass(frozen=True)
class Counts:
    """Numbers of images and regions over all products."""

    images: int
    regions: int
    quarantined: int
    base_regions: int


@dataclass(frozen=True)
class StageTime:
    """Run time of a stage of the pipeline; for a cached stage, the time of the run that computed it."""

    name: str
    product: str
    cached: bool
    seconds: float
    rows: int


@dataclass(frozen=True)
class QuarantineGroup:
    """Inputs quarantined for the same reason: their number, and (uri, stage) of the first ones."""

    reason: str
    count: int
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ClusterScores:
    """Agreement of discovered classes and labels over `n` predictions (Section IV-A)."""

    n: int
    nmi: float | None = None
    ari: float | None = None
    f1: float | None = None


@dataclass(frozen=True)
class GalleryItem:
    """A region that is shown as an example of its class.

    Parameters
    ----------
    image, mask
        Sub-image of the region and its mask, both PNG, square and of the same side.
    confidence
        Probability of the class.
    uri, label
        Source image and its label, if it has one.
    box
        Position (x0, y0, x1, y1) in pixels of the source image.
    """

    image: bytes
    mask: bytes
    confidence: float
    uri: str
    label: str | None
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class ClassReport:
    """A discovered class.

    Parameters
    ----------
    index, name, id
        Index of the class in its model, its name, and its id, which outlives the model.
    images, regions
        Numbers of members.
    majority_label, purity
        The most frequent label of its images, and the fraction of its labeled images with that label.
    most_certain, least_certain
        Example regions, the most certain first and the least certain first; no region is in both.
    """

    index: int
    name: str
    id: str
    images: int
    regions: int
    majority_label: str | None = None
    purity: float | None = None
    most_certain: Sequence[GalleryItem] = ()
    least_certain: Sequence[GalleryItem] = ()


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix (R, C) of R labels and C discovered classes, in the order of `labels` and `classes` (names)."""

    matrix: NDArray[np.integer]
    labels: Sequence[str]
    classes: Sequence[str]


@dataclass(frozen=True)
class TokenMap:
    """Class tokens of N regions in two dimensions: positions (N, 2), class indices (N,), hover texts and labels."""

    xy: NDArray[np.floating]
    cls: NDArray[np.integer]
    hover: Sequence[str]
    labels: Sequence[str | None] | None = None


@dataclass(frozen=True)
class EstimatedNumber:
    """An estimated number of classes.

    Parameters
    ----------
    n_classes, by_silhouette
        The estimates by agreement, which is taken, and by silhouette.
    low, high
        The range in which the number lies.
    confidence
        Fraction of the resamples whose silhouette is highest within the range.
    curve
        Rows (number of classes, agreement, silhouette, stability).
    warning
        Set if the confidence is low.
    """

    n_classes: int
    by_silhouette: int
    low: int
    high: int
    confidence: float
    curve: Sequence[tuple[int, float, float, float]]
    warning: str | None = None

    @property
    def range(self) -> str:
        """The range in words."""
        return describe_number(self.low, self.high)


@dataclass(frozen=True)
class ProductReport:
    """The results of a product; `losses` maps the name of a loss term to its value per epoch."""

    name: str
    image_level: ClusterScores
    region_level: ClusterScores
    classes: Sequence[ClassReport]
    normal_precision: float | None = None
    normal_recall: float | None = None
    silhouette: float | None = None
    mean_confidence: float | None = None
    head_agreement: float | None = None
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    confusion: Confusion | None = None
    token_map: TokenMap | None = None
    estimated: EstimatedNumber | None = None  # None if the number of classes was given
    detector: DetectorReport | None = None  # None if regions are cut from masks
    tree: TreeReport | None = None  # None if the classes are not nested


@dataclass(frozen=True)
class RunReport:
    """A run.

    `config` is the resolved job file as YAML, `libraries` maps packages to their versions; `cut` says of which run it
    is a cut, if it is one.
    """

    job: str
    created_at: datetime
    version: str
    libraries: Mapping[str, str]
    config: str
    counts: Counts
    stages: Sequence[StageTime]
    quarantine: Sequence[QuarantineGroup]
    products: Sequence[ProductReport]
    cut: str | None = None


def count_points(n_products: int) -> int:
    """Return the maximum number of points of each map in a report; all maps share a total."""
    return min(MAX_POINTS, _POINTS_OF_ALL_MAPS // max(n_products, 1))


def group_quarantine(rows: Iterable[tuple[str, str, str]]) -> list[QuarantineGroup]:
    """Group rows (uri, stage, reason) by reason, the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for uri, stage, reason in rows:
        counts[reason] += 1
        if len(examples[reason]) < EXAMPLES_PER_REASON:
            examples[reason].append((uri, stage))
    order = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return [QuarantineGroup(reason, counts[reason], examples[reason]) for reason in order]
