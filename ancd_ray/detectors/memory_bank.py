"""Memory banks of patch features, and distances of patches to them (PatchCore).

Shape suffixes: R C rows and columns of patches, N patches, M memory bank, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.backbones.exported import compile_graph
from ancd_ray.data.images import BadImage
from ancd_ray.detectors.base import AnomalyMap, ImageRow
from ancd_ray.detectors.patch_features import PatchGrid
from ancd_ray.detectors.patch_maps import make_maps
from ancd_ray.detectors.patchcore import NEIGHBORHOOD, PatchCore

_BLOCK = 4096  # queries per product with the memory bank: 4096 x 8000 distances are 130 MB
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

    def without(self, image: int) -> Tensor:
        """Return the features that are not from an image; all of them if there are no others."""
        kept = self.features_MD[self.images_M != image]
        return kept if len(kept) else self.features_MD


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


def nearest_distance(queries_ND: Tensor, memory_MD: Tensor) -> Tensor:
    """Compute the Euclidean distance (N,) of each query to its nearest row of the memory bank, block by block."""
    norms_M = memory_MD.square().sum(dim=1)
    return _measure(queries_ND, lambda block: torch.addmm(norms_M, block, memory_MD.T, alpha=-2).amin(dim=1))


def compile_nearest(memory_MD: Tensor) -> Callable[[Tensor], Tensor]:
    """Compile `nearest_distance` for a memory bank that many queries are compared with.

    On a CPU, OpenVINO computes it if it is installed: in the same precision, but with the widest instructions of every
    CPU, where the library that PyTorch multiplies with has narrower ones for some.
    """
    if memory_MD.device.type != "cpu" or find_spec("openvino") is None:
        return lambda queries_ND: nearest_distance(queries_ND, memory_MD)
    from openvino import Model, opset13

    queries = opset13.parameter([-1, memory_MD.shape[1]], np.float32)
    products = opset13.matmul(queries, opset13.constant((-2 * memory_MD).numpy()), False, True)
    squared = opset13.add(products, opset13.constant(memory_MD.square().sum(dim=1)[None].numpy()))
    compiled = compile_graph(Model([opset13.reduce_min(squared, np.array([1]))], [queries]))

    def find_smallest(block: Tensor) -> Tensor:
        return torch.from_numpy(compiled(block.contiguous().numpy(), share_inputs=True)[0])

    return lambda queries_ND: _measure(queries_ND, find_smallest)


def _measure(queries_ND: Tensor, find_smallest: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute distances (N,), given the function that finds the smallest |m|² − 2 q·m of each query of a block."""
    squared = [find_smallest(block) + block.square().sum(dim=1) for block in torch.split(queries_ND, _BLOCK)]
    return torch.cat(squared).clamp(min=0).sqrt()


def pack_banks(banks: Mapping[int, MemoryBank]) -> bytes:
    """Serialize memory banks by image size as one safetensors file."""
    tensors = {f"memory_{size}": bank.features_MD.contiguous() for size, bank in banks.items()}
    tensors |= {f"images_{size}": bank.images_M.contiguous() for size, bank in banks.items()}
    data: bytes = save(tensors)
    return data


def unpack_banks(data: bytes) -> dict[int, MemoryBank]:
    """Read memory banks by image size; the inverse of `pack_banks`."""
    tensors = load(data)
    sizes = [int(name.removeprefix("memory_")) for name in tensors if name.startswith("memory_")]
    return {size: MemoryBank(tensors[f"memory_{size}"], tensors[f"images_{size}"]) for size in sizes}


class MemoryBanks:
    """Scores images by their distance to memory banks; see `base.Scorer`.

    Parameters
    ----------
    backbone
        Computes patch features of images.
    config
        Settings of the detector.
    banks
        Memory bank of each size.
    """

    def __init__(self, backbone: Backbone, config: PatchCore, banks: Mapping[int, MemoryBank]) -> None:
        self._backbone, self._config = backbone, config
        self._banks = [
            MemoryBank(banks[size].features_MD.float().to(backbone.device), banks[size].images_M.to(backbone.device))
            for size in config.sizes
        ]
        self._nearest = [compile_nearest(bank.features_MD) for bank in self._banks]
        self._known = frozenset(number for bank in self._banks for number in bank.images_M.tolist())

    @torch.no_grad()
    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute maps at the resolution of the first size."""
        return make_maps(self._backbone, self._config, images, (NEIGHBORHOOD,), self._score_tile)

    def _score_tile(self, image_id: str, grids: Sequence[PatchGrid]) -> list[Tensor]:
        """Compute the scores (R, C) of a tile of an image at each size."""
        number = number_image(image_id)
        left_out = number if number in self._known else None
        return [self._score_patches(i, each.features_RCD, left_out) for i, each in enumerate(grids)]

    def _score_patches(self, i: int, features_RCD: Tensor, left_out: int | None) -> Tensor:
        """Compute the distances (R, C) of patches to the i-th memory bank."""
        bank, queries_ND = self._banks[i], features_RCD.flatten(0, 1)
        if left_out is None:
            distance_N = self._nearest[i](queries_ND)
        else:
            distance_N = nearest_distance(queries_ND, bank.without(left_out))
        return distance_N.reshape(features_RCD.shape[:2])
