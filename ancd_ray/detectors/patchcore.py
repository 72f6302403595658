"""PatchCore (Roth et al., CVPR 2022): the distance to the nearest patch of normal images is the anomaly score.

The settings are here; the computation, which needs torch, is in `memory_bank.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, field_validator

from ancd_ray.data.images import BadImage
from ancd_ray.detectors.base import FittedDetector, ImageRow, Scorer

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone

Side = Annotated[int, Field(ge=64, le=2048)]


class PatchCore(FittedDetector):
    """Distance to the nearest patch in a memory bank of normal patches."""

    name: Literal["patchcore"]
    # Long side in pixels, the aspect is kept; maps of several sizes ([320, 512]) are averaged at the size of the first.
    image_size: Side | Annotated[tuple[Side, ...], Field(min_length=1, max_length=4)] = 320
    coreset: PositiveInt = 8000  # patches in the memory bank
    candidates: PositiveInt = 60000  # patches that the greedy coreset chooses from
    smoothing: Annotated[float, Field(ge=0)] = 4.0  # sigma of the Gaussian on the map, in its pixels
    map_gamma: Annotated[float, Field(ge=1, le=8)] = 2.0  # exponent within a map, which keeps its maximum; 1: distances
    brightness: bool = True  # normalize every image to the same mean and contrast

    state_file: ClassVar[str] = "memory_bank.safetensors"
    score_keys: ClassVar[tuple[str, ...]] = ("smoothing", "map_gamma")

    @field_validator("image_size")
    @classmethod
    def _check_distinct(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("the same size is given twice")
        return value

    @property
    def sizes(self) -> tuple[int, ...]:
        """Long sides to which images are resized."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)

    def make_scorer(self, backbone: Callable[[], Backbone], state: bytes | None) -> Scorer:
        """Build the scorer from the memory banks."""
        from ancd_ray.detectors.memory_bank import MemoryBanks, PatchFeatures, unpack_banks

        assert state is not None, "PatchCore is fitted first"
        return MemoryBanks(PatchFeatures(backbone(), self), unpack_banks(state))

    def collect(
        self, images: Sequence[ImageRow], backbone: Backbone, n_normals: int
    ) -> Iterator[tuple[ImageRow, Sequence[Mapping[str, Any]] | BadImage]]:
        """Sample patches of every image at every size; the seed is the image's id."""
        from ancd_ray.detectors.memory_bank import PatchFeatures

        per_image = max(1, -(-self.candidates // n_normals))
        for image, found in PatchFeatures(backbone, self).of_images(images):
            if isinstance(found, BadImage):
                yield image, found
                continue
            rng = np.random.default_rng(int(image["image_id"][:12], 16))
            rows = []
            for size, features in zip(self.sizes, found, strict=True):
                flat = features.reshape(-1, features.shape[-1]).cpu()
                chosen = np.sort(rng.permutation(len(flat))[:per_image])
                values = flat[chosen].half().numpy()
                rows.append({"image_size": size, "dim": values.shape[1], "features": values.tobytes()})
            yield image, rows

    def fit(self, patches: Callable[[int], Iterator[tuple[str, NDArray[np.float16]]]]) -> tuple[bytes, dict[str, Any]]:
        """Choose a coreset of the patches of each size as its memory bank."""
        import torch

        from ancd_ray.detectors.memory_bank import MemoryBank, choose_coreset, number_image, pack_banks

        banks, candidates = {}, 0
        for size in self.sizes:
            of_images = [
                (number_image(image_id), torch.from_numpy(values.astype(np.float32)))
                for image_id, values in patches(size)
            ]
            features_ND = torch.cat([values for _, values in of_images])
            images_N = torch.cat([torch.full((len(values),), number) for number, values in of_images])
            candidates += len(features_ND)
            chosen = choose_coreset(features_ND, self.coreset)
            banks[size] = MemoryBank(features_ND[chosen].half(), images_N[chosen])
        (dim,) = {bank.features_MD.shape[1] for bank in banks.values()}
        memory = sum(len(bank.features_MD) for bank in banks.values())
        return pack_banks(banks), {"candidates": candidates, "memory": memory, "dim": dim}
