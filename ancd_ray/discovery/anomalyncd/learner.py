"""The trained module (tail of the backbone, projector and heads), and its loss on one or more ranks.

Shape suffixes: B regions of the batch, 2B views, D token width, P projection width, H heads, C classes.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ancd_ray.backbones.base import Backbone, Tail
from ancd_ray.discovery.anomalyncd.sources import Views
from ancd_ray.method.heads import ClusterHeads, Projector
from ancd_ray.method.losses import LossWeights, total_loss


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
    """

    def __init__(self, backbone: Backbone, n_classes: int, n_heads: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tail = backbone.make_tail()
            dim = cast(Tail, self.tail).dim
            self.projector = Projector(dim, backbone.projector_width)
            self.heads = ClusterHeads(dim, n_classes, n_heads)

    def forward(self, views: Views) -> tuple[Tensor, Tensor]:
        """Compute projections (2B, P) and cosine logits (H, 2B, C)."""
        token_2BD = self.tail(*views)
        return self.projector(token_2BD), self.heads(token_2BD)


class BatchLabels(NamedTuple):
    """Labels of the whole batch, on every rank.

    Parameters
    ----------
    labels_B
        Index of the base class, −1 without a label.
    normal_weight_B
        Weight w of the normal class (eq. 4).
    """

    labels_B: Tensor
    normal_weight_B: Tensor


def compute_loss(
    learner: nn.Module, views: Views, batch: BatchLabels, *, n_base: int, teacher_temp: float, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the objective over the views of all ranks, of which each rank holds a part; see `losses.total_loss`.

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
    n_base, teacher_temp, weights
        See `losses.total_loss`.

    Returns
    -------
    loss : Tensor
        N times the objective.
    terms : dict of str to Tensor
        See `losses.total_loss`.
    """
    z_2BP, logits_H2BC = learner(views)
    ranks = dist.get_world_size() if isinstance(learner, DistributedDataParallel) else 1
    if ranks > 1:
        z_2BP = gather_views(z_2BP)
        logits_H2BC = gather_views(logits_H2BC.transpose(0, 1).contiguous()).transpose(0, 1)
    total, terms = total_loss(z_2BP, logits_H2BC, *batch, n_base=n_base, teacher_temp=teacher_temp, weights=weights)
    return total * ranks, terms


def gather_views(mine: Tensor) -> Tensor:
    """Gather rows (2b, …) of every rank as (2B, …): first views, then second views, ordered by rank."""
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine.detach().contiguous())
    parts[dist.get_rank()] = mine  # the only rows with a gradient
    halves = torch.stack([part.reshape(2, -1, *part.shape[1:]) for part in parts], dim=1)  # (2, ranks, b, …)
    return halves.flatten(0, 2)
