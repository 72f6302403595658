"""Anomaly maps made elsewhere: how any other detector, or a plant's own, plugs in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ancd_ray.config.job import Precomputed as PrecomputedConfig
from ancd_ray.data.images import BadImage, decode_map, read_bytes
from ancd_ray.detectors.base import AnomalyMap, Image, check_values


class Precomputed:
    """See `base.Detector`.

    Integer files hold a scaled range: 0 stands for the lower end of `value_range` and the largest number of the type
    for the upper one. Floats are taken as they are. Maps of 8 bits stay so where 0..255 is what they mean:
    binarization has an exact path for them.
    """

    def __init__(self, config: PrecomputedConfig) -> None:
        self._low, self._high = config.value_range

    def score(self, images: Sequence[Image]) -> list[AnomalyMap | BadImage]:
        """The stored maps, at their own size; the aspect must be the image's."""
        return [self._read(image) for image in images]

    def _read(self, image: Image) -> AnomalyMap | BadImage:
        if image["map_uri"] is None:
            return BadImage("it has no anomaly map")
        try:
            values = decode_map(read_bytes(image["map_uri"]))
            if values.dtype == np.uint8 and (self._low, self._high) == (0.0, 255.0):
                return check_values(values)
            if values.dtype.kind == "f":
                return check_values(values.astype(np.float32))
            top = {"bool": 1, "uint8": 255}.get(str(values.dtype), 65535)  # Pillow hands 16 bits over as 32
            return check_values(self._low + values.astype(np.float32) / top * (self._high - self._low))
        except BadImage as error:
            return BadImage(f"its map {image['map_uri']}: {error}")
