"""ViT-B/8 with random weights: MGViT and a training step, compared with literal implementations.

    python benchmarks/vit.py            # times, two turns: about ten minutes on two cores
    python benchmarks/vit.py --memory   # peak memory of a step with 32 sub-images, in separate processes

A literal step with 32 sub-images takes minutes, so its time is that of two sub-images times 16.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import numpy as np
import torch
from literal import class_tokens, unfreeze_last_block
from timing import Pair, compare, describe_machine, format_time, time_call
from torch import Tensor

from ancd_ray.backbones.base import Encoded
from ancd_ray.backbones.timm_vit import TimmViT
from ancd_ray.config.sections import TrainConfig
from ancd_ray.data.roles import Classes
from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Learner, compute_loss
from ancd_ray.discovery.anomalyncd.loop import _make_optimizer
from ancd_ray.discovery.anomalyncd.sources import Views
from ancd_ray.discovery.objectives.anomalyncd import AnomalyNCD
from ancd_ray.discovery.objectives.base import Epoch

NAME, GRID, N_BASE, N_NOVEL = "vit_base_patch8_224", 28, 3, 6
EPOCHS, STEPS, BANK = 50, 40, 8


def make_images_and_masks(views: int, share: float) -> tuple[Tensor, Tensor]:
    """Generate noise, and masks that cover the given share of the patches."""
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(views, GRID * GRID, generator=generator).argsort(dim=1)
    masks = (order < share * GRID * GRID).float().unflatten(1, (GRID, GRID))
    return torch.randn(views, 3, 224, 224, generator=generator), masks.repeat_interleave(8, 1).repeat_interleave(8, 2)


class Step:
    """A training step of the learner on given views."""

    def __init__(self, vit: TimmViT, regions: int) -> None:
        self.learner = Learner(vit, N_BASE + N_NOVEL, 4, seed=0)
        self._optimizer = _make_optimizer(self.learner, vit.lr)
        labels = torch.tensor([-1, 0] * (regions // 2))
        self._labels = BatchLabels(labels, torch.zeros(len(labels)), torch.arange(len(labels)))
        self._objective = AnomalyNCD(TrainConfig(), Classes(tuple("abc"), N_NOVEL, True))

    def __call__(self, views: Views) -> None:
        """Run forward, backward and update."""
        loss, _ = compute_loss(self.learner, views, self._labels, self._objective, Epoch(0, EPOCHS))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


class LiteralStep(Step):
    """A training step with the literal forward pass, whose last block is trained in place."""

    def __init__(self, vit: TimmViT, regions: int) -> None:
        super().__init__(vit, regions)
        self._model = vit._model
        self.learner.tail = torch.nn.Identity()
        parameters = [*unfreeze_last_block(self._model), *self.learner.parameters()]
        self._optimizer = torch.optim.SGD(parameters, lr=vit.lr, momentum=0.9, weight_decay=5e-5)
        self.learner.forward = lambda token: (self.learner.projector(token), self.learner.heads(token))

    def on_images(self, images: Tensor, masks: Tensor) -> None:
        """Run a step from pixels."""
        self(class_tokens(self._model, images, masks))


def make_bank_views(encoded: Encoded, views: int) -> Views:
    """Make views as in a bank: only visible tokens, in float16."""
    repeat = -(-views // len(encoded.cls_BD))
    cls, tokens, mask = encoded
    return Views(*(part.repeat(repeat, *[1] * (part.ndim - 1))[:views] for part in (cls.half(), tokens.half(), mask)))


def measure_times() -> None:
    """Print times of forward, of forward and backward, and of a step from the bank."""
    print(describe_machine())
    print("| what | visible | literal | fast | ratio |")
    print("|---|---|---|---|---|")
    vit = TimmViT(NAME, "random")
    tail = vit.make_tail()
    literal = LiteralStep(TimmViT(NAME, "random"), 2)

    def row(what: str, share: float, pair: Pair) -> None:
        print(
            f"| {what} | {share:.0%} | {format_time(pair.slow)} | {format_time(pair.fast)} | **{pair.ratio:,.3g}×** |",
            flush=True,
        )

    with torch.no_grad():
        for share in (0.3, 0.0):
            given = make_images_and_masks(2, share)
            pair = compare(lambda g=given: tail(*vit.encode(*g)), lambda g=given: class_tokens(vit._model, *g), 2)
            row("forward, 2 views", share, pair)
    fresh = Step(vit, 2)
    given = make_images_and_masks(4, 0.3)
    pair = compare(lambda: fresh(Views(*vit.encode(*given))), lambda: literal.on_images(*given), 2)
    row("forward and backward, 2 sub-images", 0.3, pair)
    slow, fill = pair.slow * 16, time_call(lambda: vit.encode(*given)) / 4
    for share in (1.0, 0.3, 0.1):
        step, views = Step(vit, 32), make_bank_views(vit.encode(*make_images_and_masks(4, share)), 64)
        step(views)
        fast = float(np.median([time_call(lambda s=step, v=views: s(v)) for _ in range(7)]))
        row("step from the bank, 32 sub-images (literal: extrapolated)", share, Pair(fast, slow, slow / fast))
        literal_run = EPOCHS * STEPS * slow
        regions = STEPS * 16
        run = EPOCHS * STEPS * fast + fill * regions * BANK
        row(
            f"{EPOCHS} epochs of {regions} regions, bank filled (both extrapolated)",
            share,
            Pair(run, literal_run, literal_run / run),
        )


def measure_memory(form: str) -> None:
    """Run one step with 32 sub-images and print the peak RSS."""
    vit = TimmViT(NAME, "random")
    given = make_images_and_masks(64, 0.3)
    if form == "literal":
        LiteralStep(vit, 32).on_images(*given)
    else:
        Step(vit, 32)(Views(*vit.encode(*given)))
    print(f"{form}: peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB", flush=True)


def main() -> None:
    """Measure times or memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", nargs="?", const="both", choices=("both", "literal", "fast"))
    given = parser.parse_args()
    if given.memory == "both":
        for form in ("fast", "literal"):
            subprocess.run([sys.executable, __file__, "--memory", form], check=True)
    elif given.memory:
        measure_memory(given.memory)
    else:
        measure_times()


if __name__ == "__main__":
    main()
