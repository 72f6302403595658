"""The ground-truth masks as anomaly maps: what discovery would reach behind a perfect detector (Table X)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ancd_ray.data.images import BadImage, decode_mask, read_bytes
from ancd_ray.detectors.base import AnomalyMap, Image


class GroundTruth:
    """See `base.Detector`. An image without a mask file has no defect: its map is zero."""

    def score(self, images: Sequence[Image]) -> list[AnomalyMap | BadImage]:
        """Masks (H, W) of 0 and 255 at image size."""
        return [_mask(image) for image in images]


def _mask(image: Image) -> AnomalyMap | BadImage:
    size = (image["height"], image["width"])
    if image["mask_uri"] is None:
        return np.zeros(size, np.uint8)
    try:
        mask = decode_mask(read_bytes(image["mask_uri"]))
    except BadImage as error:
        return BadImage(f"its mask {image['mask_uri']}: {error}")
    if mask.shape != size:
        return BadImage(f"its mask is {mask.shape[1]} x {mask.shape[0]}, the image {size[1]} x {size[0]}")
    return mask
