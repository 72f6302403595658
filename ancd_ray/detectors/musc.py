"""MuSc (Li et al., ICLR 2024): a patch is anomalous if few other images of the product have one like it.

Zero-shot: neither normal images nor labels. Each image is compared with the same references, a seeded sample of the
product, so that the cost of an image does not depend on their number and a later image is scored like the first ones.
The settings are here; the computation, which needs torch, is in `mutual_scoring.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from ancd_ray.config.base import Share
from ancd_ray.data.images import BadImage
from ancd_ray.detectors.base import FitFigures, ImageRow, Needs, Patches, Scorer, State
from ancd_ray.detectors.calibration import CALIBRATED
from ancd_ray.detectors.patches import PatchDetector

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone

Odd = Literal[1, 3, 5, 7]
_CANDIDATES = 16  # tiles' worth of patches that the coreset of a reference in tiles is chosen from


class MuSc(PatchDetector):
    """Distance to the nearest patch of each reference, averaged over the references that are nearest."""

    name: Literal["musc"]
    references: PositiveInt = 100  # images of the product that each one is compared with
    # Sides of squares of patches whose means are compared; the scores of several are averaged.
    neighborhoods: Annotated[tuple[Odd, ...], Field(min_length=1, max_length=4)] = (1,)
    nearest: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of the references that count, those nearest to a patch
    drop: Annotated[Share, Field(lt=1)] = 0.2  # share of the references' patches, the most anomalous, that are left out

    needs: ClassVar[Needs] = "references"
    state_file: ClassVar[str | None] = "references.safetensors"
    is_proposed: ClassVar[bool] = True

    @property
    def n_normals(self) -> int | None:
        """Number of normal images that are listed at most: they only calibrate its scores."""
        return CALIBRATED

    @property
    def n_references(self) -> int:
        """Number of images that each one is compared with."""
        return self.references

    def make_scorer(self, backbone: Callable[[], Backbone], state: State) -> Scorer:
        """Build the scorer from the references."""
        from ancd_ray.detectors.mutual_scoring import MutualScorer, unpack_references

        assert self.state_file, "MuSc is fitted"
        return MutualScorer(backbone(), self, unpack_references(state[self.state_file]))

    def collect(
        self,
        images: Sequence[ImageRow],
        backbone: Backbone,
        n_images: int,  # noqa: ARG002
    ) -> Iterator[tuple[ImageRow, Sequence[Patches] | BadImage]]:
        """Compute the features of the patches of every reference.

        Of an image in tiles, a coreset as large as a tile is kept: patches as different as it has, wherever they are.
        A tile of another image then costs what an image without tiles does, whatever the size of the references.
        """
        from ancd_ray.detectors.memory_bank import choose_coreset
        from ancd_ray.detectors.patch_features import compute_features
        from ancd_ray.detectors.patch_sampling import sample_patches

        for image, found in compute_features(backbone, self, images, self.neighborhoods):
            if isinstance(found, BadImage):
                yield image, found
                continue
            rows = []
            for each in sample_patches(found, lambda n: _CANDIDATES * n, int(image["image_id"][:12], 16)):
                chosen = choose_coreset(each.features_ND, each.n_of_tile)
                rows.append(Patches(each.image_size, each.neighborhood, each.features_ND[chosen].half().numpy()))
            yield image, rows

    def fit(self, patches: Callable[[int, int], Iterator[tuple[str, NDArray[np.float16]]]]) -> tuple[bytes, FitFigures]:
        """Keep the features of the references, without those of their most anomalous patches."""
        from ancd_ray.detectors.memory_bank import MemoryBank
        from ancd_ray.detectors.mutual_scoring import drop_anomalous, pack_references

        banks: dict[tuple[int, int], MemoryBank] = {
            (size, side): MemoryBank.of_images(patches(size, side))
            for size in self.sizes
            for side in self.neighborhoods
        }
        first = banks[self.sizes[0], self.neighborhoods[0]]
        figures = {"references": len(set(first.images_M.tolist())), "dim": first.features_MD.shape[1]}
        kept = {key: drop_anomalous(bank, self.drop, self.nearest) for key, bank in banks.items()}
        return pack_references(kept), figures
