"""What a detector offers the detect stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ancd_ray.data.images import BadImage

Image = Mapping[str, Any]  # a row of the table `images`
AnomalyMap = NDArray[Any]  # (h, w), aligned with the whole image, at the detector's own resolution


class Detector(Protocol):
    """Anomaly maps of images: raw, neither clamped nor rescaled (uint8 where the source has 8 bits, else float)."""

    def score(self, images: Sequence[Image]) -> list[AnomalyMap | BadImage]:
        """One map an image, or the reason why there is none."""


def check_values(values: NDArray[np.generic]) -> AnomalyMap:
    """A map that binarization can work with.

    Raises:
        BadImage: empty, or with values that are not finite.
    """
    if values.size == 0:
        raise BadImage("the anomaly map is empty")
    if not np.isfinite(values).all():
        raise BadImage("the anomaly map has values that are not finite")
    return values
