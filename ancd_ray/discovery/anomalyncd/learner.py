"""The trained module (tail of the backbone, projector and heads), and its loss on one or more ranks.

Shape suffixes: B regions of the batch, 2B views, D token width, P projection width, H heads, C classes, O classes of
over-clustering heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ancd_ray.backbones.base import Backbone, Tail
from ancd_ray.discovery.anomalyncd.sources import Views
from ancd_ray.method.heads import ClusterHeads, Projector

if TYPE_CHECKING:
    from ancd_ray.discovery.objectives.base import Epoch, Objective


class Outputs(NamedTuple):
    """What a loss is computed of; what an objective does not train has a width of 0.

    Parameters
    ----------
    z_2BP
        Projections of all views, not normalized.
    logits_H2BC
        Cosine logits of every head.
    over_H2BO
        Cosine logits of every over-clustering head.
    prototypes_HCD
        Weights of the heads, not normalized.
    """

    z_2BP: Tensor
    logits_H2BC: Tensor
    over_H2BO: Tensor
    prototypes_HCD: Tensor


class Learner(nn.Module):
    """Tail, projector and heads as one module, so that DDP handles all trained parameters.

    Parameters
    ----------
    backbone
        Backbone whose tail is trained.
    n_classes
        C, number of base and novel classes.
    n_heads
        H, number of classifiers.
    seed
        Seed of the initial weights.
    projects
        Whether there is a projector.
    n_over
        O, number of classes of over-clustering heads; 0: there are none.
    """

    def __init__(
        self, backbone: Backbone, n_classes: int, n_heads: int, seed: int, *, projects: bool = True, n_over: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tail = backbone.make_tail()
            dim = cast(Tail, self.tail).dim
            self.projector = Projector(dim, backbone.projector_width) if projects else None
            self.heads = ClusterHeads(dim, n_classes, n_heads)
            self.over = ClusterHeads(dim, n_over, n_heads) if n_over else None

    def forward(self, views: Views) -> Outputs:
        """Compute projections and logits."""
        token_2BD = self.tail(*views)
        logits_H2BC = self.heads(token_2BD)
        z_2BP = self.projector(token_2BD) if self.projector else token_2BD[:, :0]
        over_H2BO = self.over(token_2BD) if self.over else logits_H2BC[..., :0]
        return Outputs(z_2BP, logits_H2BC, over_H2BO, self.heads.weight_HCD)


class BatchLabels(NamedTuple):
    """Labels of the whole batch, on every rank.

    Parameters
    ----------
    labels_B
        Index of the base class, −1 without a label.
    normal_weight_B
        Weight w of the normal class (eq. 4).
    regions_B
        Index of the region of the first view.
    """

    labels_B: Tensor
    normal_weight_B: Tensor
    regions_B: Tensor


def compute_loss(
    learner: nn.Module, views: Views, batch: BatchLabels, objective: Objective, epoch: Epoch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the objective over the views of all ranks, of which each rank holds a part.

    Every rank computes the loss of the whole batch, with gradients through its own rows only. DDP averages the
    gradients of N ranks, so the returned loss is N times the objective: the averaged gradient equals that of one rank
    with the whole batch.

    Parameters
    ----------
    learner
        `Learner`, or its DDP wrapper.
    views
        Views of this rank.
    batch
        Labels of the whole batch.
    objective, epoch
        The objective, and when it is computed.

    Returns
    -------
    loss : Tensor
        N times the objective.
    terms : dict of str to Tensor
        See `Objective.loss`.
    """
    found: Outputs = learner(views)
    ranks = dist.get_world_size() if isinstance(learner, DistributedDataParallel) else 1
    if ranks > 1:
        z_2BP, logits_H2BC, over_H2BO, prototypes_HCD = found
        found = Outputs(
            gather_views(z_2BP),
            gather_views(logits_H2BC.transpose(0, 1).contiguous()).transpose(0, 1),
            gather_views(over_H2BO.transpose(0, 1).contiguous()).transpose(0, 1),
            # every rank has the same ones: one of them has the gradient
            prototypes_HCD if dist.get_rank() == 0 else prototypes_HCD.detach(),
        )
    total, terms = objective.loss(found, batch, epoch)
    return total * ranks, terms


def gather_views(mine: Tensor) -> Tensor:
    """Gather rows (2b, …) of every rank as (2B, …): first views, then second views, ordered by rank."""
    if not mine[0].numel():
        return mine.repeat(dist.get_world_size(), *[1] * (mine.ndim - 1))
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine.detach().contiguous())
    parts[dist.get_rank()] = mine  # the only rows with a gradient
    halves = torch.stack([part.reshape(2, -1, *part.shape[1:]) for part in parts], dim=1)  # (2, ranks, b, …)
    return halves.flatten(0, 2)
