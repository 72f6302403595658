"""Criteria without labels, by which heads, runs and settings of a sweep are compared.

Shape suffixes: N regions or images, D feature width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.method.metrics import silhouette

Floats = NDArray[np.floating[Any]]


def mean_silhouette(features_ND: Floats, cls_N: NDArray[Any]) -> float:
    """Compute the mean silhouette by cosine distance; −1 if there is only one class.

    The features must be frozen, and the same for all classifications that are compared. In class tokens of the training
    itself, classes are separated because it was trained to separate them, right or wrong, and most where it has
    collapsed.
    """
    found = silhouette(features_ND, cls_N, seed=0)
    return -1.0 if found is None else found


def asha_objective(cls_u: float, reg: float) -> float:
    """Compute L_cls^u + L_reg ≥ 0 (eq. 8, 9), which ASHA minimizes.

    The distillation loss L_cls^u bounds the entropy of a region's class from above; L_reg measures how far the classes
    are from balance. log C minus the sum is a lower bound of the mutual information of region and class. The sum is
    unweighted, so that trainings with different loss weights are comparable.
    """
    return cls_u + reg
