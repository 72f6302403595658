"""What a report says of a detector, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Quartiles = tuple[float, float, float]  # the second is the median


@dataclass(frozen=True)
class ImageScores:
    """Anomaly scores of images (N,), and whether they are labeled anomalous (N,); None without labels."""

    values: NDArray[np.floating]
    is_anomalous: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class UsualScores:
    """Scores of images (N,) that the detector was not fitted to, or was without them: what is usual.

    `are_normal` tells whether they are normal images; otherwise they are a sample of those to be sorted.
    """

    values: NDArray[np.floating]
    are_normal: bool


@dataclass(frozen=True)
class WorstImage:
    """A labeled image whose score says the contrary.

    Parameters
    ----------
    image, found, drawn
        The image, what was marked in it, and its mask, if there is one: PNG, square, of the same side.
    score
        Anomaly score.
    uri, label
        Where it is, and its label.
    """

    image: bytes
    found: bytes
    drawn: bytes | None
    score: float
    uri: str
    label: str


@dataclass(frozen=True)
class DetectorReport:
    """How a detector did on a product; figures are None if what they need is not known.

    Parameters
    ----------
    scores
        Scores of the images to be sorted.
    usual
        Scores that they are compared with.
    image_auroc, pixel_auroc, aupro
        How well scores, and the pixels of maps, tell what is labeled or drawn.
    pro_curve
        False positive rates, and per-region overlap at each.
    compared
        Number of images with a mask, of which the quartiles are.
    iou, area_ratio
        Quartiles of intersection over union of the marked area and the mask, and of the ratio of their areas.
    missed, alarms
        The defects with the lowest scores, the lowest first, and the good images with the highest, the highest first.
    """

    scores: ImageScores
    usual: UsualScores | None = None
    image_auroc: float | None = None
    pixel_auroc: float | None = None
    aupro: float | None = None
    pro_curve: tuple[Sequence[float], Sequence[float]] | None = None
    compared: int = 0
    iou: Quartiles | None = None
    area_ratio: Quartiles | None = None
    missed: Sequence[WorstImage] = ()
    alarms: Sequence[WorstImage] = ()
