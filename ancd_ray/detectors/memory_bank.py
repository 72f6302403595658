"""Memory banks of normal patch features, and distances of patches to them (PatchCore).

In our measurements, these matter more than the choice of the trunk: two scales, each L2-normalized; the aspect ratio
is kept; images are normalized to the same mean and contrast.

Shape suffixes: B images, H W pixels, R C rows and columns of patches, N patches, M memory bank, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.data.images import BadImage, ImageU8
from ancd_ray.data.sources import read_rgb
from ancd_ray.detectors.base import AnomalyMap, ImageRow
from ancd_ray.detectors.patchcore import PatchCore

_BATCH = 8
_BLOCK = 4096  # queries per product with the memory bank: 4096 x 8000 distances are 130 MB
_PROJECTION = 64  # dimension of the random projection for the greedy choice (Johnson-Lindenstrauss)


@dataclass
class PatchFeatures:
    """Patch features of images, on the grid of the finest scale."""

    backbone: Backbone
    config: PatchCore

    def of_images(self, images: Sequence[ImageRow]) -> Iterator[tuple[ImageRow, list[Tensor] | BadImage]]:
        """Compute features (R, C, D) of each image at each size, or the reason why there are none, in order."""
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            decoded = [_decode(image) for image in batch]
            good = [i for i, rgb in enumerate(decoded) if not isinstance(rgb, BadImage)]
            found: dict[int, list[Tensor]] = {i: [] for i in good}
            for size in self.config.sizes:
                for i, features in self._compute_at_size({i: decoded[i] for i in good}, size):  # type: ignore[misc]
                    found[i].append(features)
            for i, image in enumerate(batch):
                rgb = decoded[i]
                yield image, rgb if isinstance(rgb, BadImage) else found[i]

    def _compute_at_size(self, images: Mapping[int, ImageU8], size: int) -> Iterator[tuple[int, Tensor]]:
        """Compute features of images at one size; images of the same shape are one batch."""
        by_shape: dict[tuple[int, ...], dict[int, NDArray[np.float32]]] = {}
        for i, rgb in images.items():
            pixels = prepare(rgb, size, self.config.brightness, self.backbone)
            by_shape.setdefault(pixels.shape, {})[i] = pixels
        for members in by_shape.values():
            yield from zip(members, self._compute_features(np.stack(list(members.values()))), strict=True)

    def _compute_features(self, pixels_BHWC: NDArray[np.float32]) -> Tensor:
        images_BCHW = torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).to(self.backbone.device)
        maps = self.backbone.patch_features(images_BCHW, self.backbone.detector_layers)
        grid = (maps[0].shape[-2], maps[0].shape[-1])
        scales = []
        for level in maps:
            averaged = F.avg_pool2d(level, 3, 1, 1, count_include_pad=False)  # context of neighboring patches
            resized = averaged if averaged.shape[-2:] == grid else F.interpolate(averaged, grid, mode="bilinear")
            scales.append(F.normalize(resized, dim=1))
        return torch.cat(scales, dim=1).permute(0, 2, 3, 1).float()


def _decode(image: ImageRow) -> ImageU8 | BadImage:
    try:
        return read_rgb(image)
    except BadImage as error:
        return error


def prepare(rgb: ImageU8, long_side: int, brightness: bool, backbone: Backbone) -> NDArray[np.float32]:
    """Prepare an image (H, W, 3) for the trunk: resize it, and normalize its colors and optionally its brightness.

    The aspect ratio is kept, up to sides that are multiples of `backbone.multiple`.
    """
    height, width = rgb.shape[:2]
    scale = long_side / max(height, width)
    step = backbone.multiple
    size = [max(step, round(n * scale / step) * step) for n in (width, height)]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    values = cv2.resize(rgb, size, interpolation=interpolation).astype(np.float32) / 255
    values = (values - np.asarray(backbone.mean, np.float32)) / np.asarray(backbone.std, np.float32)
    if brightness:
        values = (values - values.mean()) / max(float(values.std()), 1e-2)
    return np.asarray(values, np.float32)


def choose_coreset(candidates_ND: Tensor, size: int, seed: int = 0) -> Tensor:
    """Choose a greedy coreset and return its indices (size,).

    Each choice is the candidate farthest from all earlier ones. Distances are computed in a random projection, as in
    the PatchCore paper: it approximately preserves them, and the choice is several times cheaper.
    """
    if len(candidates_ND) <= size:
        return torch.arange(len(candidates_ND))
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(candidates_ND.shape[1], _PROJECTION, generator=generator) / _PROJECTION**0.5
    points = candidates_ND @ projection.to(candidates_ND.device)
    norms = points.square().sum(dim=1)
    chosen = torch.empty(size, dtype=torch.long)
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    pick = int((points - points.mean(dim=0)).square().sum(dim=1).argmin())
    for i in range(size):
        chosen[i] = pick
        distance = torch.addmv(norms + norms[pick], points, points[pick], alpha=-2)
        torch.minimum(nearest, distance, out=nearest)
        pick = int(nearest.argmax())
    return chosen


def nearest_distance(queries_ND: Tensor, memory_MD: Tensor, norms_M: Tensor | None = None) -> Tensor:
    """Compute the Euclidean distance (N,) of each query to its nearest row of the memory bank, block by block.

    `norms_M` are the squared lengths of the rows, if they are known.
    """
    norms_M = memory_MD.square().sum(dim=1) if norms_M is None else norms_M
    found = []
    for block in torch.split(queries_ND, _BLOCK):
        squared = torch.addmm(norms_M, block, memory_MD.T, alpha=-2).amin(dim=1) + block.square().sum(dim=1)
        found.append(squared.clamp(min=0).sqrt())
    return torch.cat(found)


class MemoryBank(NamedTuple):
    """Features (M, D) of normal patches, and the number (M,) of the image that each one is from."""

    features_MD: Tensor
    images_M: Tensor

    def without(self, image: int) -> Tensor:
        """Return the features that are not from an image; all of them if there are no others."""
        kept = self.features_MD[self.images_M != image]
        return kept if len(kept) else self.features_MD


def number_image(image_id: str) -> int:
    """Return the number of an image in memory banks: 60 bits of its id."""
    return int(image_id[:15], 16)


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
    patches
        Computes patch features of images.
    banks
        Memory bank of each size.
    """

    def __init__(self, patches: PatchFeatures, banks: Mapping[int, MemoryBank]) -> None:
        self._patches = patches
        device = patches.backbone.device
        self._banks = [
            MemoryBank(banks[size].features_MD.float().to(device), banks[size].images_M.to(device))
            for size in patches.config.sizes
        ]
        self._norms = [bank.features_MD.square().sum(dim=1) for bank in self._banks]

    @torch.no_grad()
    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute maps at the resolution of the first size: distances, upsampled, averaged over sizes and smoothed."""
        maps: list[AnomalyMap | BadImage] = []
        for image, features in self._patches.of_images(images):
            left_out = number_image(image["image_id"]) if image["role"] == "normal" else None
            maps.append(features if isinstance(features, BadImage) else self._compute_map(features, left_out))
        return maps

    def _compute_map(self, features: Sequence[Tensor], left_out: int | None) -> AnomalyMap:
        config, stride = self._patches.config, self._patches.backbone.stride
        rows, columns, width = features[0].shape
        total = np.zeros((rows * stride, columns * stride), np.float32)
        for features_RCD, bank, norms_M in zip(features, self._banks, self._norms, strict=True):
            queries_ND = features_RCD.reshape(-1, width)
            if left_out is None:
                distance_N = nearest_distance(queries_ND, bank.features_MD, norms_M)
            else:
                distance_N = nearest_distance(queries_ND, bank.without(left_out))
            distance_RC = distance_N.reshape(features_RCD.shape[:2]).cpu().numpy()
            total += cv2.resize(distance_RC, total.shape[::-1], interpolation=cv2.INTER_LINEAR)
        mean = total / len(self._banks)
        return apply_gamma(
            cv2.GaussianBlur(mean, (0, 0), config.smoothing) if config.smoothing else mean, config.map_gamma
        )


def apply_gamma(map_HW: AnomalyMap, exponent: float) -> AnomalyMap:
    """Compute max · (map / max) ^ exponent: the image score is unchanged, values far below it are reduced.

    Distances to the memory bank have a floor that differs between images, which alone causes false positives at a
    threshold that is the same for all images.
    """
    highest = max(float(map_HW.max()), 1e-12)
    return np.asarray(highest * (map_HW / highest) ** exponent, np.float32)
