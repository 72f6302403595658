"""Memory banks of patch features, and the greedy choice of what they keep (PatchCore).

Shape suffixes: N patches, M memory bank, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 4096  # candidates per product with the choices of a round
_ROUND = 2048  # candidates of a round of the greedy choice
_PROJECTION = 64  # dimension of the random projection for the greedy choice (Johnson-Lindenstrauss)


class MemoryBank(NamedTuple):
    """Features (M, D) of patches, and the number (M,) of the image that each one is from."""

    features_MD: Tensor
    images_M: Tensor

    @classmethod
    def of_images(cls, patches: Iterable[tuple[str, NDArray[np.float16]]]) -> MemoryBank:
        """Join the features (N, D) of images, which come with their ids."""
        found = [(number_image(image_id), torch.from_numpy(values.copy())) for image_id, values in patches]
        numbers = [torch.full((len(values),), number) for number, values in found]
        return cls(torch.cat([values for _, values in found]), torch.cat(numbers))


def number_image(image_id: str) -> int:
    """Return the number of an image in memory banks: 60 bits of its id."""
    return int(image_id[:15], 16)


def choose_coreset(candidates_ND: Tensor, size: int, seed: int = 0) -> Tensor:
    """Choose a greedy coreset and return its indices (size,).

    Each choice is the candidate farthest from all earlier ones. Distances are computed in a random projection, as in
    the PatchCore paper: it approximately preserves them, and the choice is several times cheaper.

    A candidate comes only closer to the choices as their number grows. So the farthest ones of a round remain the only
    ones to choose from until they are all closer than the rest was at its start: distances of the rest to the choices
    of a round are one product of matrices at its end, in place of a pass over all candidates for every choice.
    """
    if len(candidates_ND) <= size:
        return torch.arange(len(candidates_ND))
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(candidates_ND.shape[1], _PROJECTION, generator=generator) / _PROJECTION**0.5
    points = candidates_ND @ projection.to(candidates_ND.device)
    norms = points.square().sum(dim=1)
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    chosen = [int((points - points.mean(dim=0)).square().sum(dim=1).argmin())]
    measured = 0
    while len(chosen) < size:
        new = torch.tensor(chosen[measured:], device=points.device)
        measured = len(chosen)
        for start in range(0, len(points), _BLOCK):
            block = slice(start, start + _BLOCK)
            squared = torch.addmm(norms[new], points[block], points[new].T, alpha=-2).amin(dim=1) + norms[block]
            torch.minimum(nearest[block], squared, out=nearest[block])
        far = nearest.topk(min(_ROUND + 1, len(points)))
        rest = float(far.values[-1])  # no candidate outside of the round is farther
        index, distance = far.indices[:-1], far.values[:-1].clone()
        rows, lengths = points[index], norms[index]
        while len(chosen) < size:
            value, pick = distance.max(dim=0)
            if float(value) < rest:
                break
            chosen.append(int(index[pick]))
            torch.minimum(distance, torch.addmv(lengths + lengths[pick], rows, rows[pick], alpha=-2), out=distance)
            distance[pick] = -torch.inf  # also where rounding leaves a distance to itself
    return torch.tensor(chosen)
