"""Precomputed anomaly maps of external detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import field_validator

from ancd_ray.data.images import BadImage
from ancd_ray.data.sources import read_map
from ancd_ray.detectors.base import AnomalyMap, DetectorConfig, ImageRow, Needs, State, check_values

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone


class Precomputed(DetectorConfig):
    """Precomputed anomaly maps (.npy, .png of 8 or 16 bit, .tiff)."""

    name: Literal["precomputed"]
    needs: ClassVar[Needs] = "maps"
    value_range: tuple[float, float] = (0.0, 1.0)  # values of 0 and of the largest integer of the format

    @field_validator("value_range")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("the lower end must be below the upper one")
        return value

    def make_scorer(self, backbone: Callable[[], Backbone], state: State) -> MapReader:  # noqa: ARG002
        """Build the scorer."""
        return MapReader(*self.value_range)


class MapReader:
    """Reads stored maps.

    Integers are scaled: 0 is `low` and the largest number of the type is `high`. Floats are unchanged. Maps of 8 bits
    with the range 0..255 stay uint8, for which binarization has an exact path.
    """

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Read the stored maps, at their own sizes; the aspect must be that of the image."""
        return [self._read(image) for image in images]

    def _read(self, image: ImageRow) -> AnomalyMap | BadImage:
        if image["map_uri"] is None:
            return BadImage("it has no anomaly map")
        try:
            values = read_map(image)
            if values.dtype == np.uint8 and (self._low, self._high) == (0.0, 255.0):
                return check_values(values)
            if values.dtype.kind == "f":
                return check_values(values.astype(np.float32))
            top = {"bool": 1, "uint8": 255}.get(str(values.dtype), 65535)  # Pillow returns 16 bits as 32
            return check_values(self._low + values.astype(np.float32) / top * (self._high - self._low))
        except BadImage as error:
            return BadImage(f"its map {image['map_uri']}: {error}")
