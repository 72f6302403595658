"""What a sweep goes by where nobody has labelled anything.

Shape suffixes: I images, D token width, H heads.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from ancd_ray.method.metrics import silhouette

Floats = NDArray[np.floating[Any]]


def unsupervised(tokens_ID: Floats, cls_I: NDArray[Any], confidence_I: Floats, heads_HI: NDArray[Any]) -> float:
    """Mean of three figures, each 1 at best: silhouette of the tokens (−1 where there is but one class), agreement
    (ARI) of the heads, and mean confidence. None of them alone will do: one large class is as confident and as agreed
    on as can be, and tight clusters may be of anything.
    """
    apart = silhouette(tokens_ID, cls_I, seed=0)
    agreed = [adjusted_rand_score(a, b) for a, b in combinations(heads_HI, 2)]
    parts = (-1.0 if apart is None else apart, float(np.mean(agreed)) if agreed else 1.0, float(np.mean(confidence_I)))
    return sum(parts) / len(parts)


def vagueness(cls_u: float, reg: float) -> float:
    """How vague the classes of a training are so far, ≥ 0: the distillation loss L_cls^u, which bounds the entropy of a
    region's class from above, and how far the classes are from balance, L_reg (eq. 8, 9; both without their weights, so
    that trainings with different weights compare). Its negative plus log C bounds the information between region and
    class from below.
    """
    return cls_u + reg
