"""How much of a night its report shows, so that it stays small whatever the night holds.

Of a few extents, the first is chosen whose pictures fit the budget; if the page is too large all the same, the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ancd_ray.jobs.nights.model import Night
from ancd_ray.jobs.report import GalleryItem
from ancd_ray.jobs.report.gallery import Gallery

LIMIT = 10_000_000  # bytes of a page
PICTURES = 6_000_000  # bytes of base64 for all pictures; the rest is for the tables


@dataclass(frozen=True)
class Extent:
    """Maximum numbers of what is shown.

    Parameters
    ----------
    gallery
        Size of pictures, and their number in each gallery (`most`).
    rows
        Rows of each table and list of a product, alerts, and new classes of a product.
    products
        Products; there are as many products left out.
    """

    gallery: Gallery
    rows: int
    products: int


EXTENTS = (
    Extent(Gallery(168, 24, 0), 100, 2000),
    Extent(Gallery(112, 24, 0), 100, 2000),
    Extent(Gallery(112, 12, 0), 60, 2000),
    Extent(Gallery(112, 6, 0), 40, 2000),
    Extent(Gallery(80, 3, 0), 30, 2000),
    Extent(Gallery(80, 1, 0), 20, 1000),
    Extent(Gallery(80, 0, 0), 10, 500),
    Extent(Gallery(80, 0, 0), 3, 20),
)


def fitting_extents(night: Night) -> Iterator[Extent]:
    """Yield the extents whose pictures fit, the largest first; the last one always does, since it has none."""
    for extent in EXTENTS:
        if extent.gallery.total_size(_pictures(night, extent)) <= PICTURES:
            yield extent


def _pictures(night: Night, extent: Extent) -> list[GalleryItem]:
    galleries = [
        gallery
        for product in night.products[: extent.products]
        for gallery in (
            *(candidate.pictures for candidate in product.candidates[: extent.rows]),
            product.unknown_pictures,
            product.uncertain_pictures,
        )
    ]
    return [item for gallery in galleries for item in gallery[: extent.gallery.most]]
