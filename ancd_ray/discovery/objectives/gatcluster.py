"""GATCluster (Niu et al., ECCV 2020): label features that transformations keep, apart from each other, and balanced.

A label feature is p = softmax(l / 0.1). With those of the first views as targets of the second ones, p',

    L = 5 L_T + 3 L_E + L_R
    L_T = −mean_i p_i' · t_i         transformation invariance; t ∝ p / Σ_i p, targets of classes of one size
    L_E = Σ_c p̄_c' ln p̄_c'           entropy of the mean prediction
    L_R = mean_ij BCE(s_ij, r_ij)    separability; s_ij the cosine of p_i' and p_j'

where r_ij is 1 if k-means puts p_i and p_j into one cluster (only for i = j, if a cluster is smaller than B / 10 C),
with the weights of the released program.

Differences to the original: the trunk is pretrained and frozen, and of it only the last block learns, instead of a
network from scratch; the mask of a region takes the place of the Gaussian attention that looks for the object, whose
loss is left out with it; targets are computed within a batch, instead of for 1,000 images that eight rounds learn
from. It sees no base set.

Shape suffixes: B regions, 2B views, H heads, C classes.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Outputs
from ancd_ray.discovery.objectives.base import Epoch, Objective

_TEMPERATURE = 0.1
_INVARIANCE, _ENTROPY = 5.0, 3.0
_SMALLEST = 0.1  # cluster, relative to one of C equal ones


class GATCluster(Objective):
    """See the module."""

    projects = False

    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Compute the three terms for every head."""
        first_HBC, second_HBC = (found.logits_H2BC.float() / _TEMPERATURE).softmax(dim=-1).chunk(2, dim=1)
        first_HBC = first_HBC.detach()
        invariance_H = -(second_HBC * balance(first_HBC)).sum(dim=-1).mean(dim=1)
        mean_HC = second_HBC.mean(dim=1).clamp(min=1e-5)
        entropy_H = (mean_HC * mean_HC.log()).sum(dim=-1)
        pairs = zip(second_HBC, first_HBC, strict=True)
        separability_H = torch.stack([separate(second_BC, relate(first_BC)) for second_BC, first_BC in pairs])
        loss_H = _INVARIANCE * invariance_H + _ENTROPY * entropy_H + separability_H
        terms = {
            "cls_u": invariance_H.mean(),
            "reg": entropy_H.mean(),
            "separability": separability_H.mean(),
            "total": loss_H.mean(),
            "clustering_H": loss_H,
        }
        return loss_H.mean(), {name: term.detach() for name, term in terms.items()}


def balance(probs_HBC: Tensor) -> Tensor:
    """Compute the targets t: probabilities over the sums of their classes, with rows that sum to 1."""
    balanced_HBC = probs_HBC / probs_HBC.sum(dim=1, keepdim=True).clamp(min=1e-5)
    return balanced_HBC / balanced_HBC.sum(dim=2, keepdim=True)


def relate(probs_BC: Tensor) -> Tensor:
    """Compute the relation r (B, B): 1 for regions of one cluster of k-means, else 0."""
    n_classes = probs_BC.shape[1]
    itself = torch.eye(len(probs_BC), device=probs_BC.device)
    if len(probs_BC) < n_classes:
        return itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # predictions may be fewer than classes
        cls_B = KMeans(n_classes, n_init=1, random_state=0).fit_predict(probs_BC.double().cpu().numpy())
    if np.bincount(cls_B, minlength=n_classes).min() < _SMALLEST * len(cls_B) / n_classes:
        return itself
    return torch.from_numpy(cls_B[:, None] == cls_B).to(itself)


def separate(probs_BC: Tensor, relation_BB: Tensor) -> Tensor:
    """Compute the separability loss over all pairs, each counted once, and the regions themselves."""
    unit_BC = F.normalize(probs_BC, dim=1)
    similarity_BB = (unit_BC @ unit_BC.T).clamp(0, 1)
    lower = torch.tril_indices(len(probs_BC), len(probs_BC), device=probs_BC.device).unbind()
    return F.binary_cross_entropy(similarity_BB[lower], relation_BB[lower])
