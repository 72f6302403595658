"""Heads on the class token (Section III-C3): a projector and several cosine classifiers.

Both hold plain parameters, so that their state dicts can be stored as safetensors and read by other versions of torch.
Shape suffixes: N rows, D token width, P projection width, H heads, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projector(nn.Sequential):
    """Three-layer MLP φ from the unnormalized class token (N, D) to contrastive features (N, P).

    Parameters
    ----------
    dim
        D, width of the class token.
    hidden
        Width of both hidden layers.
    out
        P, width of the features.
    """

    def __init__(self, dim: int, hidden: int = 2048, out: int = 256) -> None:
        super().__init__(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, out)
        )
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)


class ClusterHeads(nn.Module):
    """H linear classifiers without bias, with L2-normalized tokens and class weights: cosine logits in [−1, 1].

    Normalizing in the forward pass is weight normalization with the gain fixed at 1. The norm of a stored class weight
    does not affect the logits, only the angle by which an optimizer step turns it.
    """

    def __init__(self, dim: int, n_classes: int, n_heads: int = 4) -> None:
        super().__init__()
        self.weight_HCD = nn.Parameter(torch.empty(n_heads, n_classes, dim))
        nn.init.uniform_(self.weight_HCD, -(dim**-0.5), dim**-0.5)

    def forward(self, token_ND: Tensor) -> Tensor:
        """Compute cosine logits (H, N, C) of class tokens (N, D)."""
        token_ND = F.normalize(token_ND, dim=-1)
        return torch.einsum("nd,hcd->hnc", token_ND, F.normalize(self.weight_HCD, dim=-1))
