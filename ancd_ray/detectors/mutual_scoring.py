"""Mutual scoring of patches (MuSc): distances to the nearest patch of each reference.

Shape suffixes: R C rows and columns of patches, N patches of an image, M patches of all references, J references,
D feature width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.data.images import BadImage
from ancd_ray.detectors.base import AnomalyMap, ImageRow
from ancd_ray.detectors.memory_bank import MemoryBank, number_image
from ancd_ray.detectors.musc import MuSc
from ancd_ray.detectors.patch_features import PatchGrid
from ancd_ray.detectors.patch_maps import make_maps

_COLUMNS = 4096  # patches of references in a product of matrices: 400 x 4096 distances are 7 MB
_ROUNDING = 1e-2  # distance below which features of length 1 or more differ by their rounding alone

Banks = Mapping[tuple[int, int], MemoryBank]  # by image size and neighbourhood


@dataclass(frozen=True)
class References:
    """Features (M, D) of the patches of references, those of one reference after those of another."""

    features_MD: Tensor
    norms_M: Tensor
    lengths: Sequence[int]  # patches of each reference
    numbers: Sequence[int]  # number of each reference

    @classmethod
    def of_bank(cls, bank: MemoryBank, device: str) -> References:
        """Make the references of a bank whose images are contiguous."""
        numbers, lengths = torch.unique_consecutive(bank.images_M, return_counts=True)
        features_MD = bank.features_MD.float().to(device)
        return cls(features_MD, features_MD.square().sum(dim=1), lengths.tolist(), numbers.tolist())

    def measure_distances(self, queries_ND: Tensor) -> Tensor:
        """Compute the distance (N, J) of each patch to the nearest patch of each reference."""
        squared_NJ = torch.empty(len(queries_ND), len(self.lengths), device=queries_ND.device)
        start = first = 0
        while first < len(self.lengths):
            last, width = first + 1, self.lengths[first]
            while last < len(self.lengths) and width + self.lengths[last] <= _COLUMNS:
                width += self.lengths[last]
                last += 1
            block = slice(start, start + width)
            product_NM = torch.addmm(self.norms_M[block], queries_ND, self.features_MD[block].T, alpha=-2)
            for j, part in enumerate(product_NM.split_with_sizes(self.lengths[first:last], dim=1), first):
                torch.amin(part, dim=1, out=squared_NJ[:, j])
            start, first = start + width, last
        squared_NJ += queries_ND.square().sum(dim=1, keepdim=True)
        return squared_NJ.clamp_(min=0).sqrt_()


def average_nearest(distance_NJ: Tensor, share: float) -> Tensor:
    """Average the distances (N,) to the references that are nearest to a patch, a share of them, at least one."""
    k = max(1, math.ceil(share * distance_NJ.shape[1]))
    return distance_NJ.topk(k, dim=1, largest=False, sorted=False).values.mean(dim=1)


def score_patches(queries_ND: Tensor, references: References, left_out: int, nearest: float) -> Tensor:
    """Compute the scores (N,) of the patches of an image by the references, except for the one of a number."""
    others = [j for j, number in enumerate(references.numbers) if number != left_out]
    if not others:
        return measure_alone(queries_ND)
    distance_NJ = references.measure_distances(queries_ND)
    if len(others) < len(references.numbers):
        distance_NJ = distance_NJ[:, others]
    return average_nearest(distance_NJ, nearest)


def drop_anomalous(bank: MemoryBank, share: float, nearest: float) -> MemoryBank:
    """Leave out those patches of the references that the other references find most anomalous, a share of all.

    Else a defect that some references have looks normal to those that have it, too: its patches are far from most
    references, and near to some.
    """
    n_kept = len(bank.features_MD) - int(share * len(bank.features_MD))
    references = References.of_bank(bank, "cpu")
    if len(references.numbers) < 2 or n_kept == len(bank.features_MD):
        return bank
    parts = zip(torch.split(references.features_MD, list(references.lengths)), references.numbers, strict=True)
    score_M = torch.cat([score_patches(part_ND, references, number, nearest) for part_ND, number in parts])
    is_kept_M = score_M < _ROUNDING
    is_kept_M[score_M.argsort(stable=True)[:n_kept]] = True
    return MemoryBank(bank.features_MD[is_kept_M], bank.images_M[is_kept_M])


def measure_alone(queries_ND: Tensor) -> Tensor:
    """Compute the distance (N,) of each patch to the nearest other one of its image, which has no references."""
    distance_NN = torch.cdist(queries_ND, queries_ND)
    distance_NN.fill_diagonal_(math.inf)
    return distance_NN.amin(dim=1) if len(queries_ND) > 1 else torch.zeros(1, device=queries_ND.device)


def pack_references(banks: Banks) -> bytes:
    """Serialize the features of references as one safetensors file."""
    tensors = {}
    for (size, side), bank in banks.items():
        tensors[f"features_{size}_{side}"] = bank.features_MD.contiguous()
        tensors[f"images_{size}_{side}"] = bank.images_M.contiguous()
    data: bytes = save(tensors)
    return data


def unpack_references(data: bytes) -> dict[tuple[int, int], MemoryBank]:
    """Read the features of references; the inverse of `pack_references`."""
    tensors = load(data)
    names = [name.removeprefix("features_") for name in tensors if name.startswith("features_")]
    found = {}
    for name in names:
        size, side = name.split("_")
        found[int(size), int(side)] = MemoryBank(tensors[f"features_{name}"], tensors[f"images_{name}"])
    return found


class MutualScorer:
    """Scores images by their distances to references; see `base.Scorer`.

    Parameters
    ----------
    backbone
        Computes patch features of images.
    config
        Settings of the detector.
    banks
        Features of the references by image size and neighbourhood.
    """

    def __init__(self, backbone: Backbone, config: MuSc, banks: Banks) -> None:
        self._backbone, self._config = backbone, config
        self._references = {key: References.of_bank(bank, backbone.device) for key, bank in banks.items()}

    @torch.no_grad()
    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute maps at the resolution of the first size."""
        return make_maps(self._backbone, self._config, images, self._config.neighborhoods, self._score_tile)

    def _score_tile(self, image_id: str, grids: Sequence[PatchGrid]) -> list[Tensor]:
        """Compute the scores (R, C) of a tile of an image at each size."""
        number, scores = number_image(image_id), []
        for size in self._config.sizes:
            of_size = [self._score_grid(each, number) for each in grids if each.image_size == size]
            scores.append(torch.stack(of_size).mean(dim=0))
        return scores

    def _score_grid(self, grid: PatchGrid, number: int) -> Tensor:
        """Compute the scores (R, C) of patches of one size and neighbourhood."""
        references = self._references[grid.image_size, grid.neighborhood]
        score_N = score_patches(grid.features_RCD.flatten(0, 1), references, number, self._config.nearest)
        return score_N.reshape(grid.features_RCD.shape[:2])
