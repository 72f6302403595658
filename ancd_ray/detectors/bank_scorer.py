"""Scores images by the distance of their patches to memory banks (PatchCore).

Shape suffixes: R C rows and columns of patches, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.data.images import BadImage
from ancd_ray.detectors.base import AnomalyMap, ImageRow
from ancd_ray.detectors.compact_bank import CompactBank
from ancd_ray.detectors.memory_bank import number_image
from ancd_ray.detectors.patch_features import PatchGrid, compute_features
from ancd_ray.detectors.patch_maps import make_map
from ancd_ray.detectors.patchcore import NEIGHBORHOOD, PatchCore


class BankScorer:
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

    def __init__(self, backbone: Backbone, config: PatchCore, banks: Mapping[int, CompactBank]) -> None:
        self._backbone, self._config = backbone, config
        self._banks = [banks[size].to(backbone.device) for size in config.sizes]
        self._known = frozenset(number for bank in self._banks for number in bank.images_M.tolist())

    @torch.no_grad()
    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute maps at the resolution of the first size."""
        maps: list[AnomalyMap | BadImage] = []
        for image, found in compute_features(self._backbone, self._config, images, (NEIGHBORHOOD,)):
            if isinstance(found, BadImage):
                maps.append(found)
                continue
            score = partial(self._score_tile, number_image(image["image_id"]))
            maps.append(make_map(found, score, self._config, self._backbone.stride))
        return maps

    def _score_tile(self, number: int, grids: Sequence[PatchGrid]) -> list[Tensor]:
        """Compute the scores (R, C) of a tile of an image at each size."""
        left_out = number if number in self._known else None
        return [self._score_patches(i, each.features_RCD, left_out) for i, each in enumerate(grids)]

    def _score_patches(self, i: int, features_RCD: Tensor, left_out: int | None) -> Tensor:
        """Compute the distances (R, C) of patches to the i-th memory bank."""
        bank = self._banks[i] if left_out is None else self._banks[i].without(left_out)
        return bank.measure_distances(features_RCD.flatten(0, 1)).reshape(features_RCD.shape[:2])
