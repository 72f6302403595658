"""Memory banks in few dimensions: distances of patches to them at a fraction of the cost.

A patch is its principal components of the memory bank, and the length of what they leave. Residuals of different
patches are taken for orthogonal, as they nearly are in hundreds of dimensions: then squared distances are those of the
components plus the squared lengths of both residuals. With as many components as features it is the distance itself.

Shape suffixes: N patches, M memory bank, D feature width, P components.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from ancd_ray.detectors.memory_bank import MemoryBank

_COMPONENTS = 96  # image and pixel AUROC of tiles and circuit boards are those of all 472, at a quarter of the cost
_BLOCK = 4096  # queries per product with the memory bank: 4096 x 8000 distances are 130 MB


class CompactBank(NamedTuple):
    """A memory bank in the space of its leading principal components.

    Parameters
    ----------
    mean_D, basis_DP
        Mean of the features, and the components.
    memory_MP, squared_M
        Coordinates of the patches, and their squared distances to the mean, what the components leave included.
    images_M
        Number of the image that each patch is from.
    """

    mean_D: Tensor
    basis_DP: Tensor
    memory_MP: Tensor
    squared_M: Tensor
    images_M: Tensor

    @classmethod
    def of(cls, bank: MemoryBank) -> CompactBank:
        """Project a memory bank."""
        mean_D = bank.features_MD.float().mean(dim=0)
        centred_MD = bank.features_MD.float() - mean_D
        _, axes_DD = torch.linalg.eigh(centred_MD.T @ centred_MD)  # by increasing variance
        basis_DP = axes_DD.flip(1)[:, :_COMPONENTS].contiguous()
        return cls(mean_D, basis_DP, centred_MD @ basis_DP, centred_MD.square().sum(dim=1), bank.images_M)

    def to(self, device: str) -> CompactBank:
        """Move it to a device."""
        return CompactBank(*(tensor.to(device) for tensor in self))

    def without(self, image: int) -> CompactBank:
        """Return it without the patches of an image; as it is if there are no others."""
        is_kept_M = self.images_M != image
        if not is_kept_M.any():
            return self
        rows = {"memory_MP": self.memory_MP, "squared_M": self.squared_M, "images_M": self.images_M}
        return self._replace(**{name: tensor[is_kept_M] for name, tensor in rows.items()})

    def measure_distances(self, queries_ND: Tensor) -> Tensor:
        """Compute the distance (N,) of each patch to the nearest one of the memory bank, block by block."""
        found = []
        for block_ND in torch.split(queries_ND, _BLOCK):
            centred_ND = block_ND - self.mean_D
            nearest_N = torch.addmm(self.squared_M, centred_ND @ self.basis_DP, self.memory_MP.T, alpha=-2).amin(dim=1)
            found.append((nearest_N + centred_ND.square().sum(dim=1)).clamp(min=0).sqrt())
        return torch.cat(found)


def pack_banks(banks: Mapping[int, CompactBank]) -> bytes:
    """Serialize memory banks by image size as one safetensors file."""
    tensors = {
        f"{name}_{size}": tensor.contiguous() for size, bank in banks.items() for name, tensor in bank._asdict().items()
    }
    data: bytes = save(tensors)
    return data


def unpack_banks(data: bytes) -> dict[int, CompactBank]:
    """Read memory banks by image size; the inverse of `pack_banks`."""
    tensors = load(data)
    sizes = [int(name.removeprefix("images_M_")) for name in tensors if name.startswith("images_M_")]
    return {size: CompactBank(*(tensors[f"{name}_{size}"] for name in CompactBank._fields)) for size in sizes}
