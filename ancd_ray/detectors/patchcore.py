"""PatchCore (Roth et al., CVPR 2022): the distance to the nearest patch of normal images is the anomaly score.

The settings are here; the computation, which needs torch, is in `memory_bank.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from ancd_ray.data.images import BadImage
from ancd_ray.detectors.base import FitFigures, ImageRow, Needs, Patches, Scorer, State
from ancd_ray.detectors.patches import PatchDetector

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone

NEIGHBORHOOD = 3  # a feature is the mean of 3 x 3 patches, as in the paper


class PatchCore(PatchDetector):
    """Distance to the nearest patch in a memory bank of normal patches."""

    name: Literal["patchcore"]
    max_normals: PositiveInt = 3000  # normal images that it is fitted to, a seeded sample
    coreset: PositiveInt = 8000  # patches in the memory bank
    candidates: PositiveInt = 60000  # patches that the greedy coreset chooses from

    needs: ClassVar[Needs] = "normals"
    state_file: ClassVar[str | None] = "memory_bank.safetensors"
    is_proposed: ClassVar[bool] = True
    listing_keys: ClassVar[tuple[str, ...]] = ("max_normals",)

    @property
    def n_normals(self) -> int | None:
        """Number of normal images that are listed at most."""
        return self.max_normals

    def make_scorer(self, backbone: Callable[[], Backbone], state: State) -> Scorer:
        """Build the scorer from the memory banks."""
        from ancd_ray.detectors.memory_bank import MemoryBanks, unpack_banks

        assert self.state_file, "PatchCore is fitted"
        return MemoryBanks(backbone(), self, unpack_banks(state[self.state_file]))

    def collect(
        self, images: Sequence[ImageRow], backbone: Backbone, n_images: int
    ) -> Iterator[tuple[ImageRow, Sequence[Patches] | BadImage]]:
        """Sample patches of every image at every size; the seed is the image's id."""
        from ancd_ray.detectors.patch_features import compute_features
        from ancd_ray.detectors.patch_sampling import sample_patches

        per_image = max(1, -(-self.candidates // n_images))
        for image, found in compute_features(backbone, self, images, (NEIGHBORHOOD,)):
            if isinstance(found, BadImage):
                yield image, found
                continue
            sampled = sample_patches(found, lambda _: per_image, int(image["image_id"][:12], 16))
            yield (
                image,
                [Patches(each.image_size, each.neighborhood, each.features_ND.half().numpy()) for each in sampled],
            )

    def fit(self, patches: Callable[[int, int], Iterator[tuple[str, NDArray[np.float16]]]]) -> tuple[bytes, FitFigures]:
        """Choose a coreset of the patches of each size as its memory bank."""
        from ancd_ray.detectors.memory_bank import MemoryBank, choose_coreset, pack_banks

        banks, candidates = {}, 0
        for size in self.sizes:
            whole = MemoryBank.of_images(patches(size, NEIGHBORHOOD))
            candidates += len(whole.features_MD)
            chosen = choose_coreset(whole.features_MD.float(), self.coreset)
            banks[size] = MemoryBank(whole.features_MD[chosen], whole.images_M[chosen])
        (dim,) = {bank.features_MD.shape[1] for bank in banks.values()}
        memory = sum(len(bank.features_MD) for bank in banks.values())
        return pack_banks(banks), {"candidates": candidates, "memory": memory, "dim": dim}
