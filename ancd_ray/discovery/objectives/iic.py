"""IIC (Ji et al., ICCV 2019): maximizes the mutual information between the classes of two views of a region.

With p = softmax(l / 0.1) of both views, the joint distribution of their classes over a batch is P = Σ_i p_i p_i'ᵀ / B,
made symmetric as (P + Pᵀ) / 2, and the loss is −I(P) = −Σ_cc' P_cc' ln(P_cc' / (P_c P_c')) (eq. 2-3). Over-clustering
heads have the same loss over five times as many classes (Section 3.2).

Differences to the original: the trunk is pretrained and frozen, and of it only the last block learns, instead of a
network from scratch; views of regions from the view bank, instead of images; cosine classifiers at a temperature; both
kinds of heads are trained together, instead of in turns; one size of over-clustering heads. It sees no base set.

Shape suffixes: B regions, 2B views, H heads, C classes.
"""

from __future__ import annotations

from torch import Tensor

from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Outputs
from ancd_ray.discovery.objectives.base import Epoch, Objective

_TEMPERATURE = 0.1


class IIC(Objective):
    """See the module."""

    projects = False
    times_over = 5

    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Compute the negative mutual information of both kinds of heads."""
        loss_H, over_H = (-mutual_information(compute_joint(each)) for each in (found.logits_H2BC, found.over_H2BO))
        total = loss_H.mean() + over_H.mean()
        terms = {"cls_u": loss_H.mean(), "over": over_H.mean(), "total": total, "clustering_H": loss_H}
        return total, {name: term.detach() for name, term in terms.items()}


def compute_joint(logits_H2BC: Tensor) -> Tensor:
    """Compute the symmetric joint distribution (H, C, C) of the classes of two views."""
    first_HBC, second_HBC = (logits_H2BC.float() / _TEMPERATURE).softmax(dim=-1).chunk(2, dim=1)
    joint_HCC = first_HBC.transpose(1, 2) @ second_HBC / first_HBC.shape[1]
    return (joint_HCC + joint_HCC.transpose(1, 2)) / 2


def mutual_information(joint_HCC: Tensor) -> Tensor:
    """Compute the mutual information (H,) of a joint distribution, in nats."""
    joint_HCC = joint_HCC.clamp(min=1e-12)
    rows_HC1, columns_H1C = joint_HCC.sum(dim=2, keepdim=True), joint_HCC.sum(dim=1, keepdim=True)
    return (joint_HCC * (joint_HCC.log() - rows_HC1.log() - columns_H1C.log())).sum(dim=(1, 2))
