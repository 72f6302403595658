"""AMEND (Banerjee et al., WACV 2024): SimGCD with expanded neighborhoods as positives and prototypes pushed apart.

In place of SimGCD's L_rep^u, a view z of region i has as positives z⁺, each with a weight w: its other view (1), the
projections b of the K = 5 regions nearest to i (1), and those of the 6 nearest of each of these (0.1):

    L_rep^u = mean_z [ Σ_⁺ w⁺ · −log( exp(z·z⁺ / τ) / (Σ_⁺ exp(z·z⁺ / τ) + Σ_⁻ exp(z·z⁻ / τ)) ) / Σ_⁺ w⁺ ],   τ = 1,

z⁻ the views of the batch that are of none of these regions. With unit prototypes w_c and their squared distances
d_cc', the margin between two classes grows with their similarity:

    L_m = Σ_{c < c'} (d̄ − d_cc' + w_c · w_c') / C,        d̄ the mean of d over all pairs,

is added with weight 1. Formulas and constants are those of the released program. It has no hinge in L_m, so that the
distances cancel out and it comes to the sum of the similarities.

Differences to the original: those of SimGCD; neighbors and their projections are computed anew in every epoch, for all
regions, averaged over two views, instead of those of the last 2,048 views; the regions of positives are left out of
the negatives by name, not by rank.

Shape suffixes: N regions, B regions of a batch, 2B views, P projection width, K neighbors, E expanded ones, H heads, C
classes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Learner, Outputs
from ancd_ray.discovery.anomalyncd.sources import ViewSource
from ancd_ray.discovery.objectives.base import Epoch, embed_regions, find_neighbors
from ancd_ray.discovery.objectives.simgcd import TAU_UNSUPERVISED, SimGCD

_NEIGHBORS, _EXPANDED = 5, 6
_EXPANDED_WEIGHT = 0.1


class AMEND(SimGCD):
    """See the module."""

    _bank_NP: Tensor
    _near_NK: Tensor

    def prepare(self, learner: Learner, source: ViewSource, epoch: Epoch) -> None:  # noqa: ARG002
        """Project all regions and find their neighbors."""
        self._bank_NP = embed_regions(learner, source, np.arange(len(source.labels)), projected=True)
        self._near_NK = find_neighbors(self._bank_NP, _EXPANDED)

    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute SimGCD's loss with other positives, and the margin."""
        total, terms = super().loss(found, batch, epoch)
        margin = compute_margin(found.prototypes_HCD).mean()
        total = total + margin
        return total, {**terms, "margin": margin.detach(), "total": total.detach()}

    def contrast(self, z_2BP: Tensor, batch: BatchLabels) -> Tensor:
        """Compute L_rep^u over expanded neighborhoods."""
        near_BK = self._near_NK[batch.regions_B][:, :_NEIGHBORS]
        expanded_BE = self._near_NK[near_BK].flatten(1)
        return contrast_neighborhoods(z_2BP, self._bank_NP, batch.regions_B, near_BK, expanded_BE)


def contrast_neighborhoods(
    z_2BP: Tensor, bank_NP: Tensor, regions_B: Tensor, near_BK: Tensor, expanded_BE: Tensor
) -> Tensor:
    """Compute L_rep^u of projections, which are normalized here.

    Parameters
    ----------
    z_2BP
        Projections of all views.
    bank_NP
        Projections of unit length of all regions.
    regions_B, near_BK, expanded_BE
        Regions of the batch, their nearest, and the nearest of these.
    """
    z_2BP = F.normalize(z_2BP.float(), dim=1)
    positives_2BX = torch.cat([near_BK, expanded_BE], dim=1).repeat(2, 1)
    own_2B1 = (z_2BP * z_2BP.roll(len(regions_B), dims=0)).sum(dim=1, keepdim=True)
    others_2BX = torch.einsum("bp,bxp->bx", z_2BP, bank_NP[positives_2BX])
    regions_2B = regions_B.repeat(2)
    left_out_2BX = torch.cat([regions_2B[:, None], positives_2BX], dim=1)
    is_negative = (left_out_2BX[:, :, None] != regions_2B).all(dim=1)
    negatives = (z_2BP @ z_2BP.T).masked_fill(~is_negative, -torch.inf)
    log_probs = (torch.cat([own_2B1, others_2BX, negatives], dim=1) / TAU_UNSUPERVISED).log_softmax(dim=1)
    weight_X = torch.ones(1 + positives_2BX.shape[1], device=z_2BP.device)
    weight_X[1 + near_BK.shape[1] :] = _EXPANDED_WEIGHT
    return -(log_probs[:, : len(weight_X)] @ (weight_X / weight_X.sum())).mean()


def compute_margin(prototypes_HCD: Tensor) -> Tensor:
    """Compute L_m (H,) of prototypes, which are normalized here."""
    unit_HCD = F.normalize(prototypes_HCD.float(), dim=-1)
    n_classes = unit_HCD.shape[1]
    if n_classes < 2:
        return unit_HCD.sum(dim=(1, 2)) * 0
    rows, columns = torch.triu_indices(n_classes, n_classes, 1, device=unit_HCD.device)
    similarity_HX = (unit_HCD[:, rows] * unit_HCD[:, columns]).sum(dim=-1)
    squared_HX = (unit_HCD[:, rows] - unit_HCD[:, columns]).square().sum(dim=-1)
    return (squared_HX.mean(dim=1, keepdim=True) - squared_HX + similarity_HX).sum(dim=1) / n_classes
