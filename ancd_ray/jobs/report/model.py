"""What a report shows, as plain values: the contract between whoever ran a job and `render`.

A figure is None where it does not exist, most often because nobody has labelled the archive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

EXAMPLES_PER_REASON = 20  # quarantined files listed a reason; the count tells of the others
MOST_CERTAIN, LEAST_CERTAIN = 8, 4  # regions of a class that a report shows at most
MAX_POINTS = 3000  # regions on a map of class tokens; a caller with more takes a sample


@dataclass(frozen=True)
class Counts:
    """Size of the run over all products."""

    images: int
    regions: int
    quarantined: int
    base_regions: int


@dataclass(frozen=True)
class StageTime:
    """One stage of the pipeline; `seconds` is what it took when it ran, which for a cached stage was earlier."""

    name: str
    product: str
    cached: bool
    seconds: float
    rows: int


@dataclass(frozen=True)
class QuarantineGroup:
    """Inputs that were set aside for one reason: how many, and (uri, stage) of the first of them."""

    reason: str
    count: int
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ClusterScores:
    """Agreement of discovered classes with labels over `n` predictions (paper, IV-A)."""

    n: int
    nmi: float | None = None
    ari: float | None = None
    f1: float | None = None


@dataclass(frozen=True)
class ImageScores:
    """Anomaly score of every image (N,), and (N,) whether its label says anomalous, if there are labels."""

    values: NDArray[np.floating]
    is_anomalous: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class GalleryItem:
    """One region as PNG bytes, its mask as PNG bytes of the same side, and where it comes from.

    `box` is (x0, y0, x1, y1) in pixels of the original image; `label` is the label of that image.
    """

    image: bytes
    mask: bytes
    confidence: float
    uri: str
    label: str | None
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class ClassReport:
    """A discovered class. `purity` is the share of its labelled images that carry `majority_label`.

    `most_certain` starts with the most certain region, `least_certain` with the least certain; none is in both.
    """

    index: int
    name: str
    images: int
    regions: int
    majority_label: str | None = None
    purity: float | None = None
    most_certain: Sequence[GalleryItem] = ()
    least_certain: Sequence[GalleryItem] = ()


@dataclass(frozen=True)
class Confusion:
    """Counts (R, C) of R labels against C discovered classes, in the order of `labels` and `classes` (names)."""

    matrix: NDArray[np.integer]
    labels: Sequence[str]
    classes: Sequence[str]


@dataclass(frozen=True)
class TokenMap:
    """Class tokens on a plane: positions (N, 2), class index (N,), labels and hover text (plain) of N regions."""

    xy: NDArray[np.floating]
    cls: NDArray[np.integer]
    hover: Sequence[str]
    labels: Sequence[str | None] | None = None


@dataclass(frozen=True)
class EstimatedNumber:
    """An estimated number of classes, the share of resamples that agree, and rows (number, silhouette, stability)."""

    n_classes: int
    confidence: float
    curve: Sequence[tuple[int, float, float]]
    warning: str | None = None


@dataclass(frozen=True)
class ProductReport:
    """All that is shown of one product; `losses` holds one value an epoch by name of the loss."""

    name: str
    image_level: ClusterScores
    region_level: ClusterScores
    classes: Sequence[ClassReport]
    scores: ImageScores
    normal_precision: float | None = None
    normal_recall: float | None = None
    map_auroc: float | None = None
    map_aupro: float | None = None
    silhouette: float | None = None
    mean_confidence: float | None = None
    head_agreement: float | None = None
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    confusion: Confusion | None = None
    token_map: TokenMap | None = None
    estimated: EstimatedNumber | None = None  # None where the number of classes was given


@dataclass(frozen=True)
class RunReport:
    """One run; `config` is the resolved job file as YAML text, `libraries` maps a package to its version."""

    job: str
    created_at: datetime
    version: str
    libraries: Mapping[str, str]
    config: str
    counts: Counts
    stages: Sequence[StageTime]
    quarantine: Sequence[QuarantineGroup]
    products: Sequence[ProductReport]


def group_quarantine(rows: Iterable[tuple[str, str, str]]) -> list[QuarantineGroup]:
    """Rows (uri, stage, reason) by reason, the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for uri, stage, reason in rows:
        counts[reason] += 1
        if len(examples[reason]) < EXAMPLES_PER_REASON:
            examples[reason].append((uri, stage))
    order = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return [QuarantineGroup(reason, counts[reason], examples[reason]) for reason in order]
