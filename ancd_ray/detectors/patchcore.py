"""PatchCore: a memory bank of normal patch features; the distance to the nearest one is the anomaly score.

What matters more than the trunk, measured: two scales, each on the unit sphere; the aspect kept; every image brought to
the same mean and contrast before it is looked at.

Shape suffixes: B images, H W pixels, R C rows and columns of patches, N patches, M memory bank, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.config import PatchCore as PatchCoreConfig
from ancd_ray.detectors.base import AnomalyMap, Image
from ancd_ray.images import BadImage, Bytes, decode_rgb, read_bytes

_BATCH = 8
_BLOCK = 4096  # queries in one product with the memory bank: 4096 x 8000 distances are 130 MB
_PROJECTION = 64  # width in which the greedy choice measures distances (Johnson-Lindenstrauss)


@dataclass
class Patches:
    """Features on the grid of the finer scale; it looks at images as the memory bank has seen them."""

    backbone: Backbone
    config: PatchCoreConfig
    device: str

    def of_images(self, images: Sequence[Image]) -> Iterator[tuple[Image, Tensor | BadImage]]:
        """Features (R, C, D) of each image, or why there are none; in the order of the images."""
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            pixels = [self._prepare(image) for image in batch]
            by_shape: dict[tuple[int, ...], list[int]] = {}
            for i, item in enumerate(pixels):
                if not isinstance(item, BadImage):
                    by_shape.setdefault(item.shape, []).append(i)
            features: dict[int, Tensor] = {}
            for members in by_shape.values():  # images of one shape go through the trunk together
                stacked = np.stack([pixels[i] for i in members])  # type: ignore[misc]
                features.update(zip(members, self._features(stacked), strict=True))
            for i, image in enumerate(batch):
                item = pixels[i]
                yield image, item if isinstance(item, BadImage) else features[i]

    def _prepare(self, image: Image) -> NDArray[np.float32] | BadImage:
        try:
            rgb = decode_rgb(read_bytes(image["uri"]))
        except BadImage as error:
            return error
        return prepare(rgb, self.config, self.backbone)

    def _features(self, pixels_BHWC: NDArray[np.float32]) -> Tensor:
        images_BCHW = torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).to(self.device)
        maps = self.backbone.patch_features(images_BCHW, self.backbone.detector_layers)
        grid = (maps[0].shape[-2], maps[0].shape[-1])
        scales = []
        for level in maps:
            averaged = F.avg_pool2d(level, 3, 1, 1, count_include_pad=False)  # a patch knows its neighbours
            resized = averaged if averaged.shape[-2:] == grid else F.interpolate(averaged, grid, mode="bilinear")
            scales.append(F.normalize(resized, dim=1))
        return torch.cat(scales, dim=1).permute(0, 2, 3, 1).float()


def prepare(rgb: Bytes, config: PatchCoreConfig, backbone: Backbone) -> NDArray[np.float32]:
    """The image (H, W, 3) as the trunk sees it: its aspect kept, sides that the trunk can divide, levels evened out."""
    height, width = rgb.shape[:2]
    scale = config.image_size / max(height, width)
    step = backbone.multiple
    size = [max(step, round(n * scale / step) * step) for n in (width, height)]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    values = cv2.resize(rgb, size, interpolation=interpolation).astype(np.float32) / 255
    values = (values - np.asarray(backbone.mean, np.float32)) / np.asarray(backbone.std, np.float32)
    if config.brightness:
        values = (values - values.mean()) / max(float(values.std()), 1e-2)
    return np.asarray(values, np.float32)


def coreset(candidates_ND: Tensor, size: int, seed: int = 0) -> Tensor:
    """Indices (size,) of a greedy coreset: each choice is the candidate farthest from all earlier ones.

    Distances are taken in a random projection, as in the paper of PatchCore: the order of distances survives it and
    the choice is several times cheaper.
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


def nearest_distance(queries_ND: Tensor, memory_MD: Tensor) -> Tensor:
    """Euclidean distance (N,) of each query to its nearest row of the memory bank, block by block."""
    norms_M = memory_MD.square().sum(dim=1)
    found = []
    for block in torch.split(queries_ND, _BLOCK):
        squared = torch.addmm(norms_M, block, memory_MD.T, alpha=-2).amin(dim=1) + block.square().sum(dim=1)
        found.append(squared.clamp(min=0).sqrt())
    return torch.cat(found)


class PatchCore:
    """See `base.Detector`."""

    def __init__(self, patches: Patches, memory_MD: Tensor) -> None:
        self._patches = patches
        self._memory = memory_MD.float().to(patches.device)

    @torch.no_grad()
    def score(self, images: Sequence[Image]) -> list[AnomalyMap | BadImage]:
        """Maps at the resolution that the trunk saw: distances, upsampled from the patches and smoothed."""
        return [
            features if isinstance(features, BadImage) else self._map(features)
            for _, features in self._patches.of_images(images)
        ]

    def _map(self, features_RCD: Tensor) -> AnomalyMap:
        rows, columns, width = features_RCD.shape
        distance_RC = nearest_distance(features_RCD.reshape(-1, width), self._memory).reshape(rows, columns)
        stride, sigma = self._patches.backbone.stride, self._patches.config.smoothing
        size = (columns * stride, rows * stride)
        upsampled = cv2.resize(distance_RC.cpu().numpy(), size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.GaussianBlur(upsampled, (0, 0), sigma) if sigma else upsampled)
