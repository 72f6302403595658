"""What a trained method is, apart from the loop that all share: its modules, its loss, its work between epochs.

Shape suffixes: N regions, B regions of a batch, D token width, P projection width, H heads, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.config.sections import TrainConfig
from ancd_ray.data.roles import Classes
from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Learner, Outputs
from ancd_ray.discovery.anomalyncd.sources import Ints, Views, ViewSource
from ancd_ray.discovery.nearest import find_nearest

_BATCH = 64  # regions whose views are in memory at a time


@dataclass(frozen=True)
class Epoch:
    """Number of an epoch, from 0, and how many there are."""

    index: int
    count: int


class Objective(ABC):
    """A trained method: two views of each region of a batch in, a loss out.

    Parameters
    ----------
    config
        Settings of the training.
    classes
        The classes to find.
    """

    projects: ClassVar[bool] = True  # whether the loss is computed of projections, too
    times_over: ClassVar[int] = 0  # classes of over-clustering heads, for each novel class
    trains_heads: ClassVar[bool] = True

    def __init__(self, config: TrainConfig, classes: Classes) -> None:
        self.config, self.classes = config, classes

    def make_learner(self, backbone: Backbone) -> Learner:
        """Create the module that is trained."""
        n_classes, n_over = self.classes.n_base + self.classes.n_novel, self.times_over * self.classes.n_novel
        config = self.config
        learner = Learner(backbone, n_classes, config.heads, config.seed, projects=self.projects, n_over=n_over)
        learner.heads.requires_grad_(self.trains_heads)
        return learner

    def prepare(self, learner: Learner, source: ViewSource, epoch: Epoch) -> None:  # noqa: B027
        """Prepare an epoch; the result depends on the weights alone, so that a continued training is the same."""

    def choose_drawn(self, source: ViewSource) -> NDArray[np.bool_]:
        """Choose the regions (N,) that batches are drawn of: all of them."""
        return np.ones(len(source.labels), bool)

    def choose_partners(self, regions_B: Ints, rng: np.random.Generator) -> Ints:  # noqa: ARG002
        """Choose the regions of the second views: the same."""
        return regions_B

    @abstractmethod
    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch.

        Returns
        -------
        total : Tensor
            The loss, a scalar.
        terms : dict of str to Tensor
            Detached terms: scalars, of which one is `total`, and `clustering_H`, by which heads are compared.
        """

    def finish(self, learner: Learner, source: ViewSource, head_losses: Sequence[float]) -> list[float]:
        """Finish the training and return the losses of the heads.

        The normal class, if there is one, comes first of the novel ones: in each head, the class whose regions have the
        lowest mean score.
        """
        if self.classes.has_normal:
            novel_N = find_novel(source)
            logits_HNC = learner.heads(embed_regions(learner, source, novel_N))
            put_normal_first(learner, logits_HNC, source.scores_N[novel_N], self.classes.n_base)
        return list(head_losses)


def find_novel(source: ViewSource) -> Ints:
    """Find the indices of the novel regions."""
    return np.flatnonzero([label is None for label in source.labels])


@torch.no_grad()
def put_normal_first(learner: Learner, logits_HNC: Tensor, scores_N: NDArray[np.float32], n_base: int) -> None:
    """Order the novel classes of each head, so that the one whose regions have the lowest mean score is first."""
    for head, cls_N in enumerate(logits_HNC[..., n_base:].argmax(dim=-1).cpu().numpy()):
        n_each_K = np.bincount(cls_N, minlength=logits_HNC.shape[-1] - n_base)
        total_K = np.bincount(cls_N, weights=scores_N, minlength=len(n_each_K))
        mean_K = np.divide(total_K, n_each_K, out=np.full(len(n_each_K), np.inf), where=n_each_K > 0)
        weight_KD = learner.heads.weight_HCD[head, n_base:]
        first = int(mean_K.argmin())
        weight_KD.copy_(weight_KD[[first, *(k for k in range(len(mean_K)) if k != first)]].clone())


@torch.no_grad()
def embed_regions(learner: Learner, source: ViewSource, regions_N: Ints, *, projected: bool = False) -> Tensor:
    """Compute class tokens (N, D), or projections (N, P), of unit length, averaged over two views."""
    device, found = learner.heads.weight_HCD.device, []
    for views in load_pairs(source, regions_N):
        token_2BD = learner.tail(*(part.to(device) for part in views))
        found_2B = learner.projector(token_2BD) if projected and learner.projector else token_2BD
        found.append(torch.stack(F.normalize(found_2B, dim=1).chunk(2)).mean(dim=0))
    return F.normalize(torch.cat(found), dim=1)


def load_pairs(source: ViewSource, regions_N: Ints) -> Iterator[Views]:
    """Load two views of each region, some regions at a time; the same ones every time."""
    for start in range(0, len(regions_N), _BATCH):
        regions_B = regions_N[start : start + _BATCH]
        yield source.load(regions_B, source.draw(regions_B, np.random.default_rng(start)))


def find_neighbors(features_ND: Tensor, k: int) -> Tensor:
    """Find the k nearest others of each row, or all of fewer: indices (N, k), the nearest first."""
    values_ND = features_ND.detach().cpu().numpy()
    k = min(k, len(values_ND) - 1)
    rows = find_nearest(values_ND, values_ND, k + 1).rows
    is_own = rows == np.arange(len(rows))[:, None]
    others = np.take_along_axis(rows, np.argsort(is_own, axis=1, kind="stable"), axis=1)
    return torch.from_numpy(others[:, :k]).to(features_ND.device)
