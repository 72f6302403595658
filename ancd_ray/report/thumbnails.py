"""A region as a small JPEG with its mask outlined.

JPEG at twice the shown side or less is 3 to 10 kB: a report of hundreds of regions stays a file one can mail.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CONTOUR_BGR = (60, 255, 190)  # lime: rare on parts of metal, wood or leather
HALO_BGR = (20, 20, 20)  # keeps the line visible on a bright surface
JPEG_QUALITY = 82


def thumbnail(png_image: bytes, png_mask: bytes, side: int = 112) -> bytes:
    """JPEG (side, side) of a square region with the outline of its mask; an empty mask has none.

    Raises:
        ValueError: one of the two cannot be decoded.
    """
    image = _decode(png_image, cv2.IMREAD_COLOR, "image")
    mask = _decode(png_mask, cv2.IMREAD_GRAYSCALE, "mask")
    shrinks = image.shape[0] > side
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    # any covered fraction counts, or a hairline scratch would lose its outline
    inside = (cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    # the line runs a little outside the defect, so that it does not hide what it points at
    reach = max(3, side // 24) | 1
    around = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    contours, _ = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for colour, width in ((HALO_BGR, 3), (CONTOUR_BGR, 1)):
        cv2.drawContours(small, contours, -1, colour, width, cv2.LINE_AA)
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(jpeg)


def _decode(png: bytes, mode: int, what: str) -> NDArray[Any]:
    image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(png, np.uint8), mode) if png else None
    if image is None:
        raise ValueError(f"the {what} of a region cannot be decoded")
    return image
