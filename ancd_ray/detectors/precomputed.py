"""Precomputed anomaly maps of external detectors; their formats are in `data/map_files.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import field_validator

from ancd_ray.data.images import BadImage
from ancd_ray.data.roles import ListedImage
from ancd_ray.data.sources import read_map
from ancd_ray.detectors.base import AnomalyMap, DetectorConfig, ImageRow, Needs, State, check_values
from ancd_ray.detectors.map_samples import describe_maps, read_samples

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone

_TOP = {"bool": 1, "uint8": 255}
_TOP_DEEP = 65535  # of 16 bits, which Pillow returns as 32


class Precomputed(DetectorConfig):
    """Precomputed anomaly maps (.npy, .npz, .png of 8 or 16 bit, .tiff, Parquet)."""

    name: Literal["precomputed"]
    needs: ClassVar[Needs] = "maps"
    value_range: tuple[float, float] = (0.0, 1.0)  # values of 0 and of the largest integer of the format
    anomalous: Literal["high", "low"] = "high"  # values of anomalies; low: maps are reflected within the value range

    @field_validator("value_range")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("the lower end must be below the upper one")
        return value

    def describe_inputs(self, images: Sequence[ListedImage]) -> list[str]:
        """Describe type, range, size and polarity of a few maps, measured."""
        return describe_maps(read_samples(images), self.value_range, self.anomalous)

    def make_scorer(self, backbone: Callable[[], Backbone], state: State) -> MapReader:  # noqa: ARG002
        """Build the scorer."""
        return MapReader(*self.value_range, self.anomalous == "low")


class MapReader:
    """Reads stored maps.

    Integers are scaled: 0 is `low` and the largest number of the type is `high`. Floats are unchanged. Maps of 8 bits
    with the range 0..255 stay uint8, for which binarization has an exact path. With `is_inverted`, low values are
    anomalous, and values are reflected: v becomes low + high − v.
    """

    def __init__(self, low: float, high: float, is_inverted: bool = False) -> None:
        self._low, self._high, self._is_inverted = low, high, is_inverted

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Read the stored maps, at their own sizes; whatever its aspect, a map covers the whole image."""
        return [self._read(image) for image in images]

    def _read(self, image: ImageRow) -> AnomalyMap | BadImage:
        if image["map_uri"] is None:
            return BadImage("it has no anomaly map")
        try:
            values = self._scale(read_map(image))
            if self._is_inverted:
                values = (self._low + self._high - values).astype(values.dtype)
            return check_values(values)
        except BadImage as error:
            return BadImage(f"its map {image['map_uri']}: {error}")

    def _scale(self, values: AnomalyMap) -> AnomalyMap:
        if values.dtype == np.uint8 and (self._low, self._high) == (0.0, 255.0):
            return values
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what no longer is a number is told
                return values.astype(np.float32)
        top = _TOP.get(str(values.dtype), _TOP_DEEP)
        if int(values.min()) < 0 or int(values.max()) > top:
            raise BadImage(f"integers of {values.min()} to {values.max()} are not 8 or 16 bits; save floats instead")
        return self._low + values.astype(np.float32) / top * (self._high - self._low)
