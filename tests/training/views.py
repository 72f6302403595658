"""Synthetic views for tests of training without images: a direction per class plus noise per view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ancd_ray.discovery.anomalyncd.sources import Ints, Views

WIDTH, LENGTH = 16, 5


class TinyTail(nn.Module):
    """Implements `backbones.base.Tail` with a few hundred weights."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = WIDTH
        self.linear = nn.Linear(2 * WIDTH, WIDTH)

    def calibrate(self, cls_ND: Tensor) -> None:
        """Do nothing."""

    def forward(self, cls_BD: Tensor, tokens_BLD: Tensor, key_mask_BL: Tensor) -> Tensor:
        """Compute class tokens (B, WIDTH)."""
        weight_BL = key_mask_BL / key_mask_BL.sum(dim=1, keepdim=True).clamp(min=1)
        seen_BD = torch.einsum("bl,bld->bd", weight_BL, tokens_BLD)
        out: Tensor = cls_BD + self.linear(torch.cat([cls_BD, seen_BD], dim=1))
        return out


class TinyBackbone:
    """Creates the tail; it is never called with images."""

    device = "cpu"
    lr = 0.05
    projector_width = 64

    def make_tail(self) -> nn.Module:
        """Create a new tail."""
        return TinyTail()


class SyntheticViews:
    """Implements `anomalyncd.sources.ViewSource`; a view depends only on its seed."""

    def __init__(self, base: Sequence[str] = ("x", "y"), n_each: int = 12, sizes: Sequence[int] = (12, 12, 12)) -> None:
        rng = np.random.default_rng(0)
        names: list[str | None] = [*base, *[None] * len(sizes)]
        count = [*[n_each] * len(base), *sizes]
        self.labels = [name for name, n in zip(names, count, strict=True) for _ in range(n)]
        self.region_ids = [f"region-{index:03d}" for index in range(len(self.labels))]
        self.truth_N = np.repeat(np.arange(len(names)), count)
        self.scores_N = rng.uniform(0, 1, len(self.labels)).astype(np.float32)
        self._centers = rng.standard_normal((len(names), WIDTH)).astype(np.float32) * 2

    def draw(self, regions_B: Ints, rng: np.random.Generator) -> Ints:
        """Draw a seed for each view."""
        return rng.integers(0, 2**31, (2, len(regions_B)))

    def load(self, regions: Ints, draws_2B: Ints) -> Views:
        """Draw the views of the given seeds."""
        tokens = []
        for region, seed in zip(np.broadcast_to(regions, draws_2B.shape).ravel(), draws_2B.ravel(), strict=True):
            noise = np.random.default_rng(int(seed)).standard_normal((LENGTH + 1, WIDTH)).astype(np.float32)
            tokens.append(self._centers[self.truth_N[region]] + 0.5 * noise)
        stacked = torch.from_numpy(np.stack(tokens))
        mask = torch.ones(len(tokens), LENGTH, dtype=torch.bool)
        mask[torch.from_numpy(draws_2B.ravel() % 3 == 0), -1] = False
        return Views(stacked[:, 0], stacked[:, 1:], mask)

    def sample_cls(self) -> Tensor:
        """Return one view of each novel region."""
        novel = np.flatnonzero([label is None for label in self.labels])
        return self.load(novel, np.zeros((1, len(novel)), np.int64)).cls_2BD
