"""What a baseline is given: the frozen features of a set of regions. Shapes: N regions, D feature width, S cues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.discovery.clusterings.algorithms import Labels, calibrated
from ancd_ray.discovery.features.shape import standardised

_SHAPE = 0.35  # weight of the shape cues beside features of length 1
Floats = NDArray[np.floating[Any]]
Probs = NDArray[np.float32]


@dataclass(frozen=True)
class Described:
    """Features of N regions; `labels` are known classes and are there for the base set alone."""

    masked_ND: Floats
    centred_ND: Floats
    top_ND: Floats
    shape_NS: Floats
    score_N: Floats
    area_N: Floats
    widths: tuple[int, ...]
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.masked_ND)

    @property
    def appearance_ND(self) -> NDArray[np.float64]:
        """Masked features, calibrated."""
        return calibrated(self.masked_ND, self.widths)

    @property
    def look_ND(self) -> NDArray[np.float64]:
        """Masked features of views without their mean colour, calibrated, beside the shape cues."""
        centred_ND = calibrated(self.centred_ND, self.widths)
        return np.concatenate([centred_ND, _SHAPE * standardised(self.shape_NS)], axis=1)


def certain(labels_N: Labels, n_classes: int) -> Probs:
    """Probabilities of a clustering that knows no doubt."""
    return np.eye(n_classes, dtype=np.float32)[labels_N]
