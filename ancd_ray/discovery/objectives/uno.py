"""UNO (Fini et al., ICCV 2021): one cross-entropy over known and novel classes, with targets of equal sizes.

The logits of a view are those of the known classes beside those of the novel ones, l = [l_known, l_novel]. The target
of a labeled view is its class. That of a novel one is its other view's pseudo label: with L (B, K) the novel logits of
the first, or of the second, views of a batch, Y = argmax_Y tr(Y Lᵀ) + ε H(Y) over all Y ≥ 0 whose rows sum to 1 / B
and whose columns to 1 / K (eq. 4-5), by three iterations of Sinkhorn and Knopp on exp(L / ε), ε = 0.05. The loss is
the cross-entropy of softmax(l / 0.1) with the targets (eq. 2-3), for every head, and for over-clustering heads of
three times as many classes.

Differences to the original: the trunk is pretrained and frozen, and of it only the last block learns, instead of a
network that was trained with the labels of the base set first; the last block takes the place of the projection before
each head; each head has its own known classes; half of a batch is of the base set; two views of a region instead of
eight.

Shape suffixes: B regions, 2B views, H heads, C known and novel classes, K novel classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Outputs
from ancd_ray.discovery.objectives.base import Epoch, Objective

_TEMPERATURE = 0.1
_EPSILON = 0.05
_ITERATIONS = 3


class UNO(Objective):
    """See the module."""

    projects = False
    times_over = 3

    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Compute the cross-entropy of both kinds of heads."""
        known_H2BC = found.logits_H2BC[..., : self.classes.n_base]
        over_H2BC = torch.cat([known_H2BC, found.over_H2BO], dim=-1)
        loss_H, over_H = (
            swap_predictions(logits, batch.labels_B, self.classes.n_base) for logits in (found.logits_H2BC, over_H2BC)
        )
        total = (loss_H.mean() + over_H.mean()) / 2
        terms = {"cls": loss_H.mean(), "over": over_H.mean(), "total": total, "clustering_H": loss_H}
        return total, {name: term.detach() for name, term in terms.items()}


def swap_predictions(logits_H2BC: Tensor, labels_B: Tensor, n_base: int) -> Tensor:
    """Compute the cross-entropy (H,) with labels of known views and pseudo labels of the other views of novel ones."""
    logits_H2BC, labels_2B = logits_H2BC.float(), labels_B.repeat(2)
    target_H2BC = torch.zeros_like(logits_H2BC)
    known_2B, novel_B = labels_2B >= 0, labels_B < 0
    target_H2BC[:, known_2B] = F.one_hot(labels_2B[known_2B], logits_H2BC.shape[-1]).to(target_H2BC)
    first_HBC, second_HBC = logits_H2BC.detach()[..., n_base:].chunk(2, dim=1)
    pseudo = [assign_equally(each[:, novel_B]) for each in (second_HBC, first_HBC)]  # exchanged
    target_H2BC[:, ~known_2B, n_base:] = torch.cat(pseudo, dim=1)
    return -(target_H2BC * (logits_H2BC / _TEMPERATURE).log_softmax(dim=-1)).sum(dim=-1).mean(dim=1)


@torch.no_grad()
def assign_equally(logits_HBK: Tensor, epsilon: float = _EPSILON, iterations: int = _ITERATIONS) -> Tensor:
    """Assign views to classes of equal size by Sinkhorn's and Knopp's iterations.

    Parameters
    ----------
    logits_HBK
        Cosine logits.
    epsilon
        Weight of the entropy; the smaller, the closer to 0 and 1 are the assignments.
    iterations
        How often columns and rows are normalized.

    Returns
    -------
    Tensor
        Probabilities (H, B, K); rows sum to 1, and columns to B / K after enough iterations.
    """
    log_HBK = logits_HBK / epsilon
    if not log_HBK.shape[1]:
        return log_HBK
    for _ in range(iterations):
        log_HBK = log_HBK - log_HBK.logsumexp(dim=1, keepdim=True) - math.log(log_HBK.shape[2])
        log_HBK = log_HBK - log_HBK.logsumexp(dim=2, keepdim=True)
    return log_HBK.exp()
