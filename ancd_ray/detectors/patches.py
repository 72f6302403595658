"""Settings of detectors that compare patch features of a frozen backbone.

The computation, which needs torch, is in `patch_features.py`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from ancd_ray.detectors.base import DetectorConfig
from ancd_ray.detectors.tiles import TileConfig

Side = Annotated[int, Field(ge=64, le=2048)]


class PatchDetector(DetectorConfig):
    """A detector that compares patch features."""

    # Long side in pixels, the aspect is kept; maps of several sizes ([320, 512]) are averaged at the size of the first.
    image_size: Side | Annotated[tuple[Side, ...], Field(min_length=1, max_length=4)] = 320
    smoothing: Annotated[float, Field(ge=0)] = 4.0  # sigma of the Gaussian on the map, in its pixels
    map_gamma: Annotated[float, Field(ge=1, le=8)] = 2.0  # exponent within a map, which keeps its maximum; 1: distances
    brightness: bool = True  # normalize every image to the same mean and contrast
    # Weight of the place of a patch in the image (0..1 along the long side) beside its features, for aligned parts.
    position: Annotated[float, Field(ge=0)] = 0.0
    # Large images in overlapping tiles, each of which is resized to `image_size`; null: every image as a whole.
    tile: TileConfig | None = None

    resources: ClassVar[Literal["images", "model"]] = "model"
    uses_backbone: ClassVar[bool] = True
    score_keys: ClassVar[tuple[str, ...]] = ("smoothing", "map_gamma")

    @field_validator("image_size")
    @classmethod
    def _check_distinct(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("the same size is given twice")
        return value

    @property
    def tile_size(self) -> int | None:
        """Side of its tiles, in pixels of the image."""
        return self.tile.size if self.tile else None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Long sides to which images are resized."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
