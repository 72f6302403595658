"""Pseudo labels of the unlabelled sub-images and their correction (Section III-C2).

The "teacher" is the student itself at a sharper temperature: no second network, no moving average. Known classes are
ruled out, and sub-images with a low anomaly score are pulled towards the first novel class, which means "normal".

Shape suffixes: N rows (views), C = n_base + n_novel classes; `...` any leading dimensions, such as heads.
"""

from __future__ import annotations

import torch
from torch import Tensor


def teacher_temperature(
    epoch: int, epochs: int, *, start: float = 0.07, end: float = 0.04, warmup_share: float = 0.8, steps: int = 10
) -> float:
    """Temperature τ_t of the teacher in an epoch (counted from 0).

    It falls from `start` to `end` in equal steps spread over the first `warmup_share` of the epochs, then stays.
    The defaults give the paper's schedule at 50 epochs: ten values, four epochs each. A run too short for all the
    steps takes as many as it has warm-up epochs.
    """
    warmup = round(warmup_share * epochs)
    if epoch >= warmup:
        return end
    levels = min(steps, warmup)
    share = epoch * levels // warmup / max(levels - 1, 1)
    return (1 - share) * start + share * end


def normal_weight(scores_N: Tensor) -> Tensor:
    """How strongly a region counts as normal: w = max(0.5 − s, 0) of eq. 4, with s its anomaly score."""
    return (0.5 - scores_N).clamp(min=0)


@torch.no_grad()
def pseudo_labels(logits_NC: Tensor, n_base: int, teacher_temp: float, normal_weight_N: Tensor) -> Tensor:
    """Corrected pseudo labels (..., N, C): q = softmax(l / τ_t) over the novel classes, then w e_1 + (1 − w) q (eq. 4).

    Args:
        logits_NC: cosine logits (..., N, C), the first `n_base` of each row for the known classes.
        n_base: number of known classes; they get probability 0.
        teacher_temp: τ_t, see `teacher_temperature`.
        normal_weight_N: w of each row, see `normal_weight`; e_1 stands for class `n_base`.
    """
    known_C = torch.arange(logits_NC.shape[-1], device=logits_NC.device) < n_base
    probs_NC = (logits_NC.float() / teacher_temp).masked_fill(known_C, -torch.inf).softmax(dim=-1)
    probs_NC = probs_NC * (1 - normal_weight_N).unsqueeze(-1)
    probs_NC[..., n_base] += normal_weight_N
    return probs_NC
