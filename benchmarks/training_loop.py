"""Training of heads with switches, on the main regions of a sample; what a switch adds is in this file alone.

Without switches it is the training of the package (`discovery/anomalyncd/loop.py`) in one process: the same tail,
heads, losses, schedules and optimizer.

Shape suffixes: N regions, B regions of a batch, 2B views, V views, D token width, H heads, K novel classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from quality_methods import VIEWS, Labels, Sample
from torch import Tensor
from training_views import View, ViewSet, pack

from ancd_ray.backbones.base import Backbone
from ancd_ray.discovery.anomalyncd.learner import Learner
from ancd_ray.discovery.anomalyncd.loop import Sampler, _make_optimizer, learning_rate
from ancd_ray.discovery.clusterings.spectral import cluster_by_diffusion, link_neighbors
from ancd_ray.discovery.features.calibration import Floats, calibrate
from ancd_ray.discovery.features.region_features import RegionFeatures
from ancd_ray.method.losses import (
    cluster_distillation,
    info_nce,
    labeled_cross_entropy,
    mean_entropy_regularizer,
    supcon,
)
from ancd_ray.method.merging import novel_probs
from ancd_ray.method.pseudo_labels import pseudo_labels, teacher_temperature

_BATCH, _LR, _MU, _LAMBDA = 32, 0.1, 4.0, 0.3  # the defaults of the package for `lite`
BAG = 0.8  # share of the regions that each of the clusterings sees from which heads start


@dataclass(frozen=True)
class Switches:
    """What differs from the training of the package.

    `tokens` is the input (see `training_views.py`). `whiten`: whether it is whitened as for `spectral`. Prototypes
    `start` at random, at the classes of `spectral` (each head at those of a random half of the regions), or at those of
    a clustering of a random 80 % of the regions for each head (`samples`). The entropy term draws towards `sizes` that
    are equal, those of the classes that the head started from, or none. `near` is the share of second views that are
    of a linked region of the same class.
    """

    heads: int = 4
    epochs: int = 50
    base: bool = False
    tokens: Literal["kept", "centred", "ringed", "subtracted"] = "kept"
    whiten: bool = False
    start: Literal["random", "classes", "samples"] = "random"
    sizes: Literal["equal", "classes", "none"] = "equal"
    near: float = 0.0

    @property
    def name(self) -> str:
        """Name of a folder of results."""
        changed = {key: value for key, value in asdict(self).items() if value != getattr(Switches, key)}
        return "-".join(f"{key}={value}" for key, value in changed.items()) or "default"


class Problem:
    """The main regions of a sample, and what `spectral` makes of them."""

    def __init__(self, sample: Sample) -> None:
        regions = sample.regions.take(sample.main)
        assert regions.views_NV2D is not None
        assert sample.region_ids is not None
        self.regions: RegionFeatures = RegionFeatures(**{**vars(regions), "views_NV2D": regions.views_NV2D[:, VIEWS]})
        self.region_ids = sample.region_ids[sample.main]
        self.label_I, self.n_classes = sample.label_I, sample.n_classes
        self.whitened_ND = self.regions.whitened_ND
        self.links_NN = link_neighbors(self.whitened_ND)
        self.cls_N = cluster_by_diffusion(self.links_NN).cut(self.n_classes)

    @cached_property
    def comparison_ND(self) -> Floats:
        """Features of the silhouette by which a head is selected."""
        return calibrate(self.regions.centred_ND, self.regions.widths)

    def whiten(self, tokens_LD: NDArray[Any]) -> NDArray[np.float16]:
        """Calibrate and whiten tokens, without scaling them to unit length."""
        found = self.regions.whitening
        parts = np.split(tokens_LD.astype(np.float64) - found.mean_D, np.cumsum(found.widths)[:-1], axis=1)
        scaled = [part / length for part, length in zip(parts, found.lengths, strict=True)]
        return np.asarray(np.concatenate(scaled, axis=1) @ found.whitening_DD, np.float16)

    def draw_starts(self, n_heads: int, start: str, rng: np.random.Generator) -> list[tuple[Labels, Labels]]:
        """Draw the rows of some regions and their classes, for each head."""
        n_regions, found = len(self.cls_N), []
        for _ in range(n_heads):
            rows = np.arange(n_regions)
            cls = self.cls_N
            if start == "samples":
                rows = np.sort(rng.permutation(n_regions)[: round(BAG * n_regions)])
                cls = cluster_by_diffusion(link_neighbors(self.whitened_ND[rows])).cut(self.n_classes)
            found.append((rows, cls))
        return found


class Trained(NamedTuple):
    """Probabilities (H, N, K) of the clean view and averaged over all, embeddings (N, D), and clustering losses."""

    clean_HNK: NDArray[np.float32]
    mean_HNK: NDArray[np.float32]
    embedding_ND: NDArray[np.float32]
    loss_H: NDArray[np.float32]


def train(problem: Problem, novel: ViewSet, base: ViewSet | None, model: Backbone, switches: Switches) -> Trained:
    """Train heads on the views of the regions of a problem, and of a labeled base set."""
    n_regions, n_classes = len(novel), problem.n_classes
    drawn = list(novel.drawn) + (base.drawn if base else [])
    names = sorted({str(label) for label in base.labels}) if base else []
    label_N = np.full(len(drawn), -1)
    if base:
        label_N[n_regions:] = [names.index(str(label)) for label in base.labels]
    learner = Learner(model, len(names) + n_classes, switches.heads, seed=0)
    cls_ND = np.stack([cls_D for views in novel.drawn for cls_D, _ in views]).astype(np.float32)
    learner.tail.calibrate(torch.from_numpy(cls_ND))  # type: ignore[operator]
    shares_HK = _start(learner, problem, drawn, label_N, len(names), switches)
    optimizer = _make_optimizer(learner, _LR)
    sampler = Sampler([None if label < 0 else "base" for label in label_N], _BATCH)
    reach_NN = _accumulate_links(problem)
    loss_H = torch.zeros(switches.heads)
    for epoch in range(switches.epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch, switches.epochs, _LR)
        teacher_temp, loss_H = teacher_temperature(epoch, switches.epochs), torch.zeros(switches.heads)
        for step in range(sampler.steps):
            rng = np.random.default_rng([0, epoch, step])
            rows_B = sampler.draw(rng)
            views = _draw_views(drawn, rows_B, reach_NN, switches.near, rng)
            token_2BD = learner.tail(*pack(views))
            total, own_H = _compute_loss(
                learner, token_2BD, torch.from_numpy(label_N[rows_B]), len(names), teacher_temp, shares_HK, switches
            )
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_H += own_H / sampler.steps
    return _predict(learner, novel, len(names), loss_H)


def _start(
    learner: Learner, problem: Problem, drawn: list[list[View]], label_N: Labels, n_base: int, switches: Switches
) -> Tensor:
    """Set the prototypes, and return the shares (H, K) of the classes."""
    n_regions, n_classes = len(problem.cls_N), problem.n_classes
    rng = np.random.default_rng([0, 99])
    starts = problem.draw_starts(switches.heads, switches.start, rng)
    if switches.start != "random":
        with torch.no_grad():
            token_ND = torch.stack([F.normalize(learner.tail(*pack(views)), dim=-1).mean(dim=0) for views in drawn])
            weight_HCD = learner.heads.weight_HCD
            length = weight_HCD.norm(dim=-1).mean()
            for head, (rows, cls) in enumerate(starts):
                for k in range(n_classes):
                    members = rows[cls == k]
                    if head and switches.start == "classes":
                        members = rng.choice(members, max(1, (len(members) + 1) // 2), replace=False)
                    weight_HCD[head, n_base + k] = F.normalize(token_ND[members].mean(dim=0), dim=0) * length
            for k in range(n_base):
                members = n_regions + np.flatnonzero(label_N[n_regions:] == k)
                weight_HCD[:, k] = F.normalize(token_ND[members].mean(dim=0), dim=0) * length
    shares = [np.bincount(cls, minlength=n_classes) / len(rows) for rows, cls in starts]
    return torch.from_numpy(np.stack(shares)).float()


def _accumulate_links(problem: Problem) -> Floats:
    """Sum the shares of the regions that a region is linked to, of its own class if there are any."""
    own_NN = problem.links_NN * (problem.cls_N[:, None] == problem.cls_N)
    is_alone_N = own_NN.sum(axis=1) == 0
    own_NN[is_alone_N] = problem.links_NN[is_alone_N]
    return np.cumsum(own_NN / own_NN.sum(axis=1, keepdims=True), axis=1)


def _draw_views(
    drawn: list[list[View]], rows_B: Labels, reach_NN: Floats, near: float, rng: np.random.Generator
) -> list[View]:
    """Draw two views of each region, or the second one of a region that it is linked to."""
    first, second = [], []
    for row in rows_B:
        one, other = rng.permutation(len(drawn[row]))[:2]
        partner = row
        if near and row < len(reach_NN) and rng.random() < near:
            partner = min(int(np.searchsorted(reach_NN[row], rng.random())), len(reach_NN) - 1)
        first.append(drawn[row][one])
        second.append(drawn[partner][other])
    return first + second


def _compute_loss(
    learner: Learner,
    token_2BD: Tensor,
    label_B: Tensor,
    n_base: int,
    teacher_temp: float,
    shares_HK: Tensor,
    switches: Switches,
) -> tuple[Tensor, Tensor]:
    """Compute the objective of eq. 9 with another entropy term, and the clustering loss of each head."""
    z_2BP, logits_H2BC = learner.projector(token_2BD), learner.heads(token_2BD)
    is_base_B = label_B >= 0
    is_base_2B = is_base_B.repeat(2)
    novel_logits = logits_H2BC[:, ~is_base_2B]
    teacher = pseudo_labels(novel_logits, n_base, teacher_temp, torch.zeros(novel_logits.shape[1]))
    own_H = cluster_distillation(novel_logits, teacher)
    if switches.sizes == "equal":
        own_H = own_H + _MU * mean_entropy_regularizer(novel_logits)
    elif switches.sizes == "classes":
        own_H = own_H + _MU * divergence_from_sizes(novel_logits[..., n_base:], shares_HK)
    lam = _LAMBDA if n_base else 0.0
    total = (1 - lam) * (info_nce(z_2BP, 1.0) + own_H.mean())
    if n_base:
        labels = label_B[is_base_B]
        labeled = labeled_cross_entropy(logits_H2BC[:, is_base_2B], labels).mean()
        total = total + lam * (supcon(z_2BP[is_base_2B], labels, 0.07) + labeled)
    return total, own_H.detach()


def divergence_from_sizes(logits_HNK: Tensor, shares_HK: Tensor, temperature: float = 0.1) -> Tensor:
    """Compute the divergence (H,) of the mean prediction from shares of classes; of equal ones it is L_reg of eq. 9."""
    log_mean_HK = (logits_HNK.float() / temperature).log_softmax(dim=-1).logsumexp(dim=-2)
    log_mean_HK = log_mean_HK - math.log(logits_HNK.shape[-2])
    return (log_mean_HK.exp() * (log_mean_HK - shares_HK.log())).sum(dim=-1)


@torch.no_grad()
def _predict(learner: Learner, novel: ViewSet, n_base: int, loss_H: Tensor) -> Trained:
    """Predict all views of the regions."""
    views = [view for own in novel.every for view in own]
    tokens, logits = [], []
    for start in range(0, len(views), 64):
        token_BD = learner.tail(*pack(views[start : start + 64]))
        tokens.append(F.normalize(token_BD, dim=-1))
        logits.append(learner.heads(token_BD))
    probs = novel_probs(torch.cat(logits, dim=1).numpy(), n_base)
    probs_HNVK = probs.reshape(len(probs), len(novel), -1, probs.shape[-1])
    embedding_ND = torch.cat(tokens).numpy().reshape(len(novel), probs_HNVK.shape[2], -1).mean(axis=1)
    return Trained(probs_HNVK[:, :, -1], probs_HNVK.mean(axis=2), embedding_ND, loss_H.numpy())
