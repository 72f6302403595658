"""The fixed views of a region that clusterings average over: turned and mirrored ones, and other scales and brightness.

They are the changes that do not make a defect another one. Drawn at random, features would not be reproducible.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from ancd_ray.data.images import decode_mask, decode_rgb
from ancd_ray.discovery.features.ring import encode_rings
from ancd_ray.discovery.features.viewed import Symmetry
from ancd_ray.method.views import Image, adjust_brightness, clean_view

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone

_TURNS: dict[Symmetry, tuple[tuple[bool, int], ...]] = {  # whether it is mirrored, and quarters of a turn
    "square": tuple((mirrored, quarters) for mirrored in (False, True) for quarters in range(4)),
    "rotations": tuple((False, quarters) for quarters in range(4)),
    "none": ((False, 0),),
}
_SCALES = ((5 / 7, 0.8), (6 / 7, 1.2), (8 / 7, 0.9), (9 / 7, 1.1))  # side relative to the clean view, and brightness


def make_fixed_views(
    image: Image, mask: Image, size: int, multiple: int, symmetry: Symmetry
) -> list[tuple[Image, Image]]:
    """Compute the fixed views of a square sub-image and its mask; the first is the clean view.

    Parameters
    ----------
    image, mask
        RGB image and mask of 0 and 255, of the same side.
    size
        Side of the clean view in pixels.
    multiple
        The sides of the scaled views are multiples of it.
    symmetry
        Turns of the clean view: all eight symmetries of the square, four rotations, or none.

    Returns
    -------
    The turned clean views, and four views of the whole sub-image at other scales. The masks have the size of the clean
    view.
    """
    clean = clean_view(image, mask, size)
    turned = [(_turn(clean[0], *turn), _turn(clean[1], *turn)) for turn in _TURNS[symmetry]]
    whole = cast(Image, cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT))
    scaled = []
    for scale, brightness in _SCALES:
        side = round(scale * size / multiple) * multiple
        interpolation = cv2.INTER_AREA if side < len(image) else cv2.INTER_LINEAR
        resized = cast(Image, cv2.resize(image, (side, side), interpolation=interpolation))
        scaled.append((adjust_brightness(resized, brightness), whole))
    return [*turned, *scaled]


def add_fixed_views(
    model: Backbone,
    regions: Sequence[Mapping[str, Any]],
    features: Sequence[dict[str, Any]],
    viewed: Collection[str],
    symmetry: Symmetry,
) -> None:
    """Add the column `views` to rows of `features`: the fixed views of the regions whose ids are in `viewed`."""
    rows = [row for row in features if row["region_id"] in viewed]
    of_id = {region["region_id"]: region for region in regions}
    drawn = []
    for row in rows:
        region = of_id[row["region_id"]]
        image, mask = decode_rgb(region["image"]), decode_mask(region["mask"])
        drawn.append(make_fixed_views(image, mask, model.view_size, model.multiple, symmetry))
    encoded = [encode_rings(model, views).numpy() for views in zip(*drawn, strict=True)]  # views of one size at a time
    for index, row in enumerate(rows):
        row["views"] = np.stack([rings_B2D[index] for rings_B2D in encoded]).astype(np.float16).tobytes()


def _turn(plane: Image, mirrored: bool, quarters: int) -> Image:
    return np.ascontiguousarray(np.rot90(plane[:, ::-1] if mirrored else plane, quarters))
