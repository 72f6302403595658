"""Training loop (Section III-C): sampling of batches, optimization, and checkpoints.

Random numbers are seeded by (seed, epoch, step), so that a run that is resumed from a checkpoint, or on another number
of ranks, draws the same batches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ancd_ray.backbones.base import Backbone
from ancd_ray.data.store import Folder
from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Learner, compute_loss
from ancd_ray.discovery.anomalyncd.sources import Ints, Views, ViewSource
from ancd_ray.discovery.objectives.base import Epoch, Objective
from ancd_ray.method.pseudo_labels import normal_weight

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-5
KEPT_CHECKPOINTS = 2  # the newest may be unreadable after a kill, depending on the filesystem


@dataclass
class History:
    """Loss terms by epoch, and the clustering loss of each head in the last epoch."""

    terms: dict[str, list[float]] = field(default_factory=dict)
    head_losses: list[float] = field(default_factory=list)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Append the means of an epoch."""
        for name, value in terms.items():
            if name == "clustering_H":
                self.head_losses = value.tolist()
            else:
                self.terms.setdefault(name, []).append(float(value))

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.terms.get("total", []))

    @property
    def best_head(self) -> int:
        """The head with the smallest clustering loss."""
        return int(np.argmin(self.head_losses))


@dataclass(frozen=True)
class Rank:
    """Rank of a process in a training group, and its device."""

    index: int = 0
    size: int = 1
    device: str = "cpu"

    def share(self, n: int) -> slice:
        """Return the rows of a batch of n that this rank holds."""
        each = n // self.size
        return slice(self.index * each, (self.index + 1) * each)


class Sampler:
    """Draws the regions of a batch with replacement, novel and base in turn, so that every rank holds both."""

    def __init__(
        self,
        labels: Sequence[str | None],
        batch_size: int,
        max_steps: int | None = None,
        is_drawn_N: NDArray[np.bool_] | None = None,
    ) -> None:
        is_base_N = np.array([label is not None for label in labels])
        is_drawn_N = np.ones(len(labels), bool) if is_drawn_N is None else is_drawn_N
        self._novel, self._base = np.flatnonzero(~is_base_N & is_drawn_N), np.flatnonzero(is_base_N & is_drawn_N)
        self._batch_size = batch_size
        self._max_steps = max_steps

    @property
    def steps(self) -> int:
        """Steps per epoch: every novel region is drawn once on average, unless that is more than `max_steps`."""
        novel = self._batch_size // 2 if len(self._base) else self._batch_size
        steps = math.ceil(len(self._novel) / novel)
        return min(steps, self._max_steps) if self._max_steps else steps

    def draw(self, rng: np.random.Generator) -> Ints:
        """Draw the indices (B,) of the regions of a batch."""
        if not len(self._base):
            return rng.choice(self._novel, self._batch_size)
        half = self._batch_size // 2
        return np.stack([rng.choice(self._novel, half), rng.choice(self._base, half)], axis=1).ravel()


def train(
    source: ViewSource,
    backbone: Backbone,
    objective: Objective,
    checkpoints: Folder,
    rank: Rank = Rank(),
    on_epoch: Callable[[History], None] = lambda _: None,
) -> tuple[Learner, History]:
    """Train to the last epoch, starting from the newest checkpoint if there is one; `on_epoch` is called on rank 0.

    Raises
    ------
    FloatingPointError
        The loss is not finite.
    """
    config, learner = objective.config, objective.make_learner(backbone)
    learner.tail.calibrate(source.sample_cls())  # type: ignore[operator]
    learner.to(rank.device)
    lr = config.lr or backbone.lr
    optimizer = _make_optimizer(learner, lr)
    history = _load_checkpoint(checkpoints, learner, optimizer)
    module: nn.Module = DistributedDataParallel(learner) if rank.size > 1 else learner
    max_steps = max(1, config.max_steps // config.epochs) if config.max_steps else None
    sampler = Sampler(source.labels, config.batch_size, max_steps, objective.choose_drawn(source))
    batches = _Batches(source, objective, rank)
    for epoch in (Epoch(index, config.epochs) for index in range(history.epochs, config.epochs)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch.index, config.epochs, lr)
        objective.prepare(learner, source, epoch)
        history.add(_train_epoch(epoch, module, optimizer, sampler, batches, objective))
        if rank.index == 0:
            if history.epochs % config.checkpoint_every == 0 and history.epochs < config.epochs:
                _save_checkpoint(checkpoints, learner, optimizer, history)
            on_epoch(history)
    history.head_losses = objective.finish(learner, source, history.head_losses)
    return learner, history


def learning_rate(epoch: int, epochs: int, lr: float) -> float:
    """Return the learning rate of an epoch: a cosine from `lr` to a thousandth of it."""
    return lr * (1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * epoch / epochs)))


def _train_epoch(
    epoch: Epoch,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    sampler: Sampler,
    batches: _Batches,
    objective: Objective,
) -> dict[str, Tensor]:
    """Run all steps of an epoch and return the means of the loss terms."""
    sums: dict[str, Tensor] = {}
    for step in range(sampler.steps):
        rng = np.random.default_rng([objective.config.seed, epoch.index, step])
        views, labels = batches.load(sampler.draw(rng), rng)
        loss, terms = compute_loss(module, views, labels, objective, epoch)
        if not torch.isfinite(loss):
            at = f"in epoch {epoch.index + 1}, step {step + 1}"
            raise FloatingPointError(f"the loss is {loss.item()} {at}; lower train.lr")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, value in terms.items():
            sums[name] = sums[name] + value if name in sums else value
    return {name: value / sampler.steps for name, value in sums.items()}


class _Batches:
    """Loads this rank's views of a batch, and the labels of the whole batch."""

    def __init__(self, source: ViewSource, objective: Objective, rank: Rank) -> None:
        self._source, self._objective, self._rank = source, objective, rank
        config, classes = objective.config, objective.classes
        index = {name: i for i, name in enumerate(classes.base_classes)}
        self._labels_N = torch.tensor([-1 if label is None else index[label] for label in source.labels])
        weight = normal_weight(torch.from_numpy(source.scores_N))
        self._weight_N = weight if classes.has_normal and config.correction else torch.zeros_like(weight)

    def load(self, regions_B: Ints, rng: np.random.Generator) -> tuple[Views, BatchLabels]:
        draws_2B = self._source.draw(regions_B, rng)
        regions_2B = np.stack([regions_B, self._objective.choose_partners(regions_B, rng)])
        mine = self._rank.share(len(regions_B))
        device = self._rank.device
        views = Views(*(part.to(device) for part in self._source.load(regions_2B[:, mine], draws_2B[:, mine])))
        chosen = torch.from_numpy(regions_B)
        labels = (self._labels_N[chosen], self._weight_N[chosen], chosen)
        return views, BatchLabels(*(each.to(device) for each in labels))


def _make_optimizer(learner: Learner, lr: float) -> torch.optim.SGD:
    """Create an SGD optimizer without weight decay on biases, norms and gains."""
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=lr,
        momentum=MOMENTUM,
        fused=True,
    )


# --- checkpoints: learner, momenta and history in one safetensors file


def _save_checkpoint(folder: Folder, learner: Learner, optimizer: torch.optim.Optimizer, history: History) -> None:
    tensors = {f"learner.{name}": value.contiguous() for name, value in learner.state_dict().items()}
    for name, parameter in learner.named_parameters():
        if "momentum_buffer" in optimizer.state[parameter]:
            tensors[f"momentum.{name}"] = optimizer.state[parameter]["momentum_buffer"].contiguous()
    notes = {"terms": json.dumps(history.terms), "head_losses": json.dumps(history.head_losses)}
    folder.write(f"epoch-{history.epochs:05d}.safetensors", save(tensors, notes))
    for name in _list_checkpoints(folder)[:-KEPT_CHECKPOINTS]:
        folder.delete(name)


def _load_checkpoint(folder: Folder, learner: Learner, optimizer: torch.optim.Optimizer) -> History:
    """Load the newest readable checkpoint, if any, and return its history."""
    for name in reversed(_list_checkpoints(folder)):
        data = folder.read(name)
        try:
            tensors, notes = load(data), _read_metadata(data)
        except Exception:  # safetensors has no public exception; try the next older one
            continue
        learner.load_state_dict(
            {key.removeprefix("learner."): tensors[key] for key in tensors if key.startswith("learner.")}
        )
        for key, parameter in learner.named_parameters():
            if (momentum := tensors.get(f"momentum.{key}")) is not None:
                optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
        return History(json.loads(notes["terms"]), json.loads(notes["head_losses"]))
    return History()


def _read_metadata(data: bytes) -> dict[str, str]:
    """Read the metadata of a safetensors file, which starts with the length of its JSON header in 8 bytes."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    notes: dict[str, str] = header["__metadata__"]
    return notes


def _list_checkpoints(folder: Folder) -> list[str]:
    return [name for name in folder.names() if name.startswith("epoch-") and name.endswith(".safetensors")]
