"""SimGCD (Wen et al., ICCV 2023): a parametric classifier over known and novel classes that learns from itself.

    L = (1 − λ) (L_cls^u + ε (log C − H(p̄)) + L_rep^u) + λ (L_cls^s + L_rep^s)        λ = 0.35, ε = 2

with p = softmax(l / 0.1) over all classes. L_cls^u is the cross-entropy of one view's p with the other view's
sharpened q = softmax(l / τ_t) (Section 4.2), over all regions, labeled ones included; τ_t falls from 0.07 to 0.04 in
the first 15 % of the epochs. H(p̄) is the entropy of the mean prediction. L_rep^u and L_rep^s are InfoNCE and SupCon
on projections, at the temperatures 1 and 0.07, and L_cls^s the cross-entropy with the labels.

Differences to the original: views of regions from the view bank behind the frozen trunk, whose last block is trained
as there; 50 epochs instead of 200; as many labeled as novel regions in every batch. AnomalyNCD differs from it in what
it leaves out of the pseudo labels (known classes; labeled regions), in λ and ε, in the correction, and in several
heads.

Shape suffixes: B regions, 2B views, P projection width, H heads, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Outputs
from ancd_ray.discovery.objectives.base import Epoch, Objective
from ancd_ray.method.losses import (
    cluster_distillation,
    info_nce,
    labeled_cross_entropy,
    mean_entropy_regularizer,
    supcon,
)
from ancd_ray.method.pseudo_labels import pseudo_labels, teacher_temperature

SUPERVISED = 0.35  # λ
_ENTROPY_WEIGHT = 2.0  # ε
_WARMUP = 0.15  # share of the epochs in which τ_t falls
TAU_UNSUPERVISED, TAU_SUPERVISED = 1.0, 0.07


class SimGCD(Objective):
    """See the module."""

    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss; without a base set λ is 0."""
        is_labeled_B = batch.labels_B >= 0
        is_labeled_2B, labels_B = is_labeled_B.repeat(2), batch.labels_B[is_labeled_B]
        logits_H2BC = found.logits_H2BC
        teacher_temp = teacher_temperature(epoch.index, epoch.count, warmup_share=_WARMUP, steps=epoch.count)
        nothing_2B = torch.zeros_like(batch.normal_weight_B).repeat(2)
        cls_u_H = cluster_distillation(logits_H2BC, pseudo_labels(logits_H2BC, 0, teacher_temp, nothing_2B))
        reg_H = mean_entropy_regularizer(logits_H2BC)
        clustering_H = cls_u_H + _ENTROPY_WEIGHT * reg_H
        cls_l = labeled_cross_entropy(logits_H2BC[:, is_labeled_2B], labels_B).mean()
        rep_u = self.contrast(found.z_2BP, batch)
        rep_s = supcon(found.z_2BP[is_labeled_2B], labels_B, TAU_SUPERVISED)
        lam = SUPERVISED if self.classes.n_base else 0.0
        total = (1 - lam) * (clustering_H.mean() + rep_u) + lam * (cls_l + rep_s)
        terms = {"rep_u": rep_u, "rep_s": rep_s, "cls_u": cls_u_H.mean(), "cls_l": cls_l, "reg": reg_H.mean()}
        terms |= {"total": total, "clustering_H": clustering_H}
        return total, {name: term.detach() for name, term in terms.items()}

    def contrast(self, z_2BP: Tensor, batch: BatchLabels) -> Tensor:  # noqa: ARG002
        """Compute L_rep^u."""
        return info_nce(z_2BP, TAU_UNSUPERVISED)
