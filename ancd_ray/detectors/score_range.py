"""The range of the scores of a product, over which maps are binarized, and the cut that normal images give.

Shape suffixes: I images, M normal images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.config.sections import MebinConfig
from ancd_ray.detectors.calibration import Calibration

Floats = NDArray[np.floating[Any]]
CUT_QUANTILE = "0.99"  # of the pixels of normal images; chosen by the overlap with masks on five sets
FAR_ABOVE_ZERO = 0.5  # if the lowest score is a smaller share of the highest, it is that of a normal image


@dataclass(frozen=True)
class Range:
    """Score range of a product, over which the levels of binarization are spaced.

    Parameters
    ----------
    low, high
        Its ends.
    cut
        Pixels above it are anomalous; None: binarization is not calibrated.
    """

    low: float
    high: float
    cut: float | None = None


def measure_score_range(score_I: Floats, config: MebinConfig, known_M: Floats | None = None) -> Range:
    """Return minimum and maximum of the image scores of a product (Section III-B), or the range that the job sets.

    The minimum is that of a normal image, if there is one among the images. If all of them are defective, it is far too
    high; it is therefore at most the median score of the normal images that are known.
    """
    if config.range != "measured":
        return Range(*config.range)
    low, high = (float(score_I.min()), float(score_I.max())) if len(score_I) else (0.0, 0.0)
    if config.floor is not None:
        return Range(min(config.floor, high), high)
    if known_M is not None and len(known_M):
        low = min(low, float(np.median(known_M)))
    return Range(low, high)


def warn_of_range(measured: Range, config: MebinConfig, knows_normal: bool) -> str | None:
    """Describe in a line that the lower end of the range may be the score of a defect; None if it is that of none."""
    is_measured = config.range == "measured" and config.floor is None and config.binarize in ("auto", "mebin")
    if not is_measured or knows_normal or measured.low <= FAR_ABOVE_ZERO * measured.high:
        return None
    return (
        f"no image is known to be normal: the lowest score, {measured.low:.3g} (highest {measured.high:.3g}), is taken "
        "for that of one; if every image has a defect, regions come out too small: list normal images, or set "
        "mebin.floor"
    )


def find_cut(calibration: Calibration, binarize: str) -> float | None:
    """Return the quantile of the pixels of normal images above which pixels are anomalous; None: MEBin is chosen.

    Raises
    ------
    ValueError
        The detector was calibrated with no image.
    """
    if binarize == "auto" and not calibration.normal_scores:
        return None
    if not calibration.normal_scores and not calibration.reference_scores:
        raise ValueError("has no image with a map to calibrate with")
    return calibration.pixel_quantiles[CUT_QUANTILE]
