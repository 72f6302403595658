"""Region of interest of a product, as its keys in the job file give it."""

from __future__ import annotations

from typing import Any

from ancd_ray.data.images import BadImage, decode_mask, read_bytes
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.location import Location, StoreError, locate
from ancd_ray.data.roi import MaskRoi, PolygonRoi, Roi


def pin_roi(product: ProductConfig, root: str) -> dict[str, Any] | None:
    """Return the document of a given region of interest, a mask with its content; None if it is to be found.

    Raises
    ------
    LayoutError
        The mask cannot be read, or is empty.
    """
    if isinstance(product.roi, PolygonRoi):
        return Roi.of_polygon(product.roi).write()
    if not isinstance(product.roi, MaskRoi):
        return None
    try:
        uri = str(locate(product.roi.mask, Location.parse(root)))
        return Roi.of_mask(decode_mask(read_bytes(uri))).write()
    except (BadImage, StoreError) as error:
        raise LayoutError(f"product {product.name}: roi.mask {product.roi.mask}: {error}") from error
