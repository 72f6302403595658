"""Calibration of a detector: the scores of images that it was not fitted to, each left out if it was.

A score says little by itself: distances to a memory bank differ between products, and between detectors. A calibration
says how high the scores of normal images are. Without normal images, it is made from references, seeded images of the
product of which some may be anomalous; medians are robust to them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ancd_ray.detectors.base import AnomalyMap

THINNED = 1 << 18  # pixels of a map that are kept for a calibration
CALIBRATED = 64  # normal images, or references, that are scored at most
TAIL = 0.995  # quantile of the pixels of an image, at whose median a map has the value 1 on its own scale
_QUANTILES = (0.5, 0.9, 0.99, 0.995, 0.999)


def thin_map(map_HW: AnomalyMap) -> AnomalyMap:
    """Return the map with at most some 2¹⁸ of its pixels, evenly spaced, and among them its maximum."""
    step = math.ceil(math.sqrt(map_HW.size / THINNED))
    if step <= 1:
        return map_HW
    start = (step - 1) // 2
    thinned = np.array(map_HW[min(start, len(map_HW) - 1) :: step, min(start, map_HW.shape[1] - 1) :: step])
    row, column = np.unravel_index(np.argmax(map_HW), map_HW.shape)
    thinned[min(row // step, len(thinned) - 1), min(column // step, thinned.shape[1] - 1)] = map_HW.max()
    return thinned


@dataclass(frozen=True)
class Calibration:
    """Scores of normal images and of references.

    Parameters
    ----------
    normal_scores, reference_scores
        Highest value of the map of an image, by the id of the image.
    pixel_quantiles
        Quantiles of the pixels of the normal images (of the references, if there are none), by their shares.
    scale
        Median of the 99.5 % quantiles of their maps.
    parts
        Calibrations of the parts of a detector that has several.
    """

    normal_scores: Mapping[str, float]
    reference_scores: Mapping[str, float]
    pixel_quantiles: Mapping[str, float]
    scale: float
    parts: tuple[Calibration, ...] = ()

    @classmethod
    def measure(
        cls,
        normal_maps: Mapping[str, AnomalyMap],
        reference_maps: Mapping[str, AnomalyMap],
        parts: Sequence[Calibration] = (),
    ) -> Calibration:
        """Measure the maps of normal images and of references, by the ids of the images."""
        maps = list((normal_maps or reference_maps).values())
        pixels = np.concatenate([values.ravel() for values in maps]) if maps else np.zeros(1, np.float32)
        tails = [np.quantile(values, TAIL) for values in maps]
        return cls(
            {image_id: float(values.max()) for image_id, values in normal_maps.items()},
            {image_id: float(values.max()) for image_id, values in reference_maps.items()},
            dict(zip(map(str, _QUANTILES), np.quantile(pixels, _QUANTILES).tolist(), strict=True)),
            max(float(np.median(tails)), 1e-6) if tails else 1.0,
            tuple(parts),
        )

    @classmethod
    def read(cls, data: bytes) -> Calibration:
        """Read what `write` returned."""
        return cls._from_json(json.loads(data))

    @classmethod
    def _from_json(cls, document: Mapping[str, object]) -> Calibration:
        parts = tuple(cls._from_json(part) for part in document["parts"])  # type: ignore[attr-defined]
        return cls(**{**document, "parts": parts})  # type: ignore[arg-type]

    def write(self) -> bytes:
        """Serialize it as JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @cached_property
    def _sorted(self) -> NDArray[np.float64]:
        return np.sort(list((self.normal_scores or self.reference_scores).values()))

    def find_quantile(self, score: float) -> float | None:
        """Return the share of the normal images (of the references, if there are none) with a lower score."""
        if not len(self._sorted):
            return None
        return float(np.searchsorted(self._sorted, score, side="left") / len(self._sorted))
