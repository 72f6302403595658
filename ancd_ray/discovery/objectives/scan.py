"""SCAN (Van Gansbeke et al., ECCV 2020): nearest neighbors get the same class, then confident regions teach.

In the first half of the epochs, with Φ = softmax(l / 0.1) of a view of region X and of one of its K nearest neighbors
k in pretext features, the loss is −mean log⟨Φ(X), Φ(k)⟩ + λ Σ_c Φ̄_c log Φ̄_c (eq. 2), Φ̄ the mean over the batch, λ =
5. In the second half the classes of first views whose probability is above 0.99 are labels of second views of the same
regions, with a cross-entropy weighted by the inverse frequencies of the classes (Section 2.3, self-labeling).

Differences to the original: the pretext features are class tokens of the frozen, pretrained trunk, averaged over two
views, instead of those of a network trained by SimCLR; the last block learns, instead of the whole network; K is 5
instead of 20, since there are classes of fewer than 20 regions; cosine classifiers at a temperature; the views of
self-labeling are no stronger. It sees no base set.

Shape suffixes: N regions, B regions of a batch, 2B views, K neighbors, H heads, C classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Learner, Outputs
from ancd_ray.discovery.anomalyncd.sources import Ints, ViewSource
from ancd_ray.discovery.objectives.base import Epoch, Objective, find_neighbors, load_pairs

_TEMPERATURE = 0.1
_NEIGHBORS = 5
_ENTROPY_WEIGHT = 5.0
_CONFIDENT = 0.99


class SCAN(Objective):
    """See the module."""

    projects = False
    _near_NK: Tensor | None = None
    _labels_itself = False

    def prepare(self, learner: Learner, source: ViewSource, epoch: Epoch) -> None:  # noqa: ARG002
        """Find the neighbors of every region, once."""
        self._labels_itself = epoch.index >= epoch.count // 2
        if self._near_NK is None:
            pairs = load_pairs(source, np.arange(len(source.labels)))
            token_ND = torch.cat([torch.stack(views.cls_2BD.chunk(2)).mean(dim=0) for views in pairs])
            self._near_NK = find_neighbors(F.normalize(token_ND - token_ND.mean(dim=0), dim=1), _NEIGHBORS)

    def choose_partners(self, regions_B: Ints, rng: np.random.Generator) -> Ints:
        """Draw a neighbor of each region; the region itself in self-labeling."""
        assert self._near_NK is not None
        if self._labels_itself or not self._near_NK.shape[1]:
            return regions_B
        drawn_B = rng.integers(self._near_NK.shape[1], size=len(regions_B))
        return np.asarray(self._near_NK[regions_B, drawn_B])

    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Compute the loss of the neighbors, or of self-labeling."""
        scaled_H2BC = found.logits_H2BC.float() / _TEMPERATURE
        if self._labels_itself:
            loss_H = torch.stack([label_itself(each_2BC) for each_2BC in scaled_H2BC])
            terms = {"cls_u": loss_H.mean()}
        else:
            same_H = agree_with_neighbors(scaled_H2BC)
            balance_H = negative_entropy(scaled_H2BC)
            loss_H = same_H + _ENTROPY_WEIGHT * balance_H
            terms = {"cls_u": same_H.mean(), "reg": balance_H.mean()}
        terms |= {"total": loss_H.mean(), "clustering_H": loss_H}
        return loss_H.mean(), {name: term.detach() for name, term in terms.items()}


def agree_with_neighbors(scaled_H2BC: Tensor) -> Tensor:
    """Compute −mean log⟨Φ(X), Φ(k)⟩ (H,) of logits over the temperature."""
    first_HBC, second_HBC = scaled_H2BC.log_softmax(dim=-1).chunk(2, dim=1)
    return -(first_HBC + second_HBC).logsumexp(dim=-1).mean(dim=1)


def negative_entropy(scaled_H2BC: Tensor) -> Tensor:
    """Compute Σ_c Φ̄_c log Φ̄_c (H,), Φ̄ the mean over all views."""
    log_mean_HC = scaled_H2BC.log_softmax(dim=-1).logsumexp(dim=1) - math.log(scaled_H2BC.shape[1])
    return (log_mean_HC.exp() * log_mean_HC).sum(dim=-1)


def label_itself(scaled_2BC: Tensor) -> Tensor:
    """Compute the cross-entropy of second views with the classes of confident first views; 0 if there are none."""
    first_BC, second_BC = scaled_2BC.chunk(2)
    confidence_B, cls_B = first_BC.detach().softmax(dim=1).max(dim=1)
    confident_B = confidence_B > _CONFIDENT
    if not confident_B.any():
        return second_BC.sum() * 0
    count_C = cls_B[confident_B].bincount(minlength=second_BC.shape[1])
    weight_C = torch.where(count_C > 0, 1 / count_C.clamp(min=1), 0.0).to(second_BC.dtype)
    return F.cross_entropy(second_BC[confident_B], cls_B[confident_B], weight=weight_C)
