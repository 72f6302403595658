"""Pseudo labels of the unlabeled sub-images and their correction (Section III-C2).

The "teacher" is the student itself at a lower temperature; there is no second network or moving average. Base classes
are excluded, and sub-images with a low anomaly score are shifted towards the first novel class, which means "normal".

Shape suffixes: N rows (views), C = n_base + n_novel classes; `...` any leading dimensions, such as heads.
"""

from __future__ import annotations

import torch
from torch import Tensor


def teacher_temperature(
    epoch: int, epochs: int, *, start: float = 0.07, end: float = 0.04, warmup_share: float = 0.8, steps: int = 10
) -> float:
    """Compute the temperature τ_t of the teacher in an epoch.

    It falls from `start` to `end` in equal steps over the first `warmup_share` of the epochs, then stays constant. The
    defaults give the paper's schedule at 50 epochs: ten values of four epochs each.

    Parameters
    ----------
    epoch
        Index of the epoch, from 0.
    epochs
        Number of epochs.
    start, end
        First and last temperature.
    warmup_share
        Fraction of the epochs in which the temperature falls.
    steps
        Number of values; limited to the number of warm-up epochs.
    """
    warmup = round(warmup_share * epochs)
    if epoch >= warmup:
        return end
    levels = min(steps, warmup)
    share = epoch * levels // warmup / max(levels - 1, 1)
    return (1 - share) * start + share * end


def normal_weight(scores_N: Tensor) -> Tensor:
    """Compute the weight of the normal class, w = max(0.5 − s, 0) of eq. 4, from anomaly scores s."""
    return (0.5 - scores_N).clamp(min=0)


@torch.no_grad()
def pseudo_labels(logits_NC: Tensor, n_base: int, teacher_temp: float, normal_weight_N: Tensor) -> Tensor:
    """Compute corrected pseudo labels: q = softmax(l / τ_t) over the novel classes, then w e_1 + (1 − w) q (eq. 4).

    Parameters
    ----------
    logits_NC
        Cosine logits (..., N, C); the first `n_base` of each row are those of the base classes.
    n_base
        Number of base classes, which get probability 0.
    teacher_temp
        τ_t, see `teacher_temperature`.
    normal_weight_N
        w of each row, see `normal_weight`; e_1 is class `n_base`.

    Returns
    -------
    Tensor
        Probabilities (..., N, C), without gradient.
    """
    known_C = torch.arange(logits_NC.shape[-1], device=logits_NC.device) < n_base
    probs_NC = (logits_NC.float() / teacher_temp).masked_fill(known_C, -torch.inf).softmax(dim=-1)
    probs_NC = probs_NC * (1 - normal_weight_N).unsqueeze(-1)
    probs_NC[..., n_base] += normal_weight_N
    return probs_NC
