"""What can be said of classes where nobody has labelled anything: of a head, of a run, of the settings of a sweep.

Shape suffixes: N regions or images, D feature width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.method.metrics import silhouette

Floats = NDArray[np.floating[Any]]


def apart(features_ND: Floats, cls_N: NDArray[Any]) -> float:
    """How far apart classes lie: the mean silhouette by cosine distance, −1 where there is but one class.

    The features are frozen ones, the same for all that is compared. In class tokens of the training itself classes lie
    apart because it has put them there, right or wrong, and furthest where it has collapsed.
    """
    found = silhouette(features_ND, cls_N, seed=0)
    return -1.0 if found is None else found


def vagueness(cls_u: float, reg: float) -> float:
    """How vague the classes of a training are so far, ≥ 0: the distillation loss L_cls^u, which bounds the entropy of a
    region's class from above, and how far the classes are from balance, L_reg (eq. 8, 9; both without their weights, so
    that trainings with different weights compare). Its negative plus log C bounds the information between region and
    class from below.
    """
    return cls_u + reg
