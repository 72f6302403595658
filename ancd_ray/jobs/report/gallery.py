"""The number and the size of the pictures of a class, chosen so that a report is small enough to send by e-mail.

Of a few levels, the first is chosen whose pictures fit the budget: with many classes, pictures become smaller and then
fewer.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ancd_ray.jobs.report.model import LEAST_CERTAIN, MOST_CERTAIN, ClassReport, GalleryItem, ProductReport
from ancd_ray.jobs.report.thumbnails import thumbnail

BUDGET = 8_000_000  # bytes of base64; with plotly.js (4.8 MB) and the figures, a report has about 15 MB at most
SAMPLE = 48  # pictures from which the total size is estimated

T = TypeVar("T")


@dataclass(frozen=True)
class Gallery:
    """Size and number of the pictures of each class.

    Parameters
    ----------
    side
        Side of a picture in pixels.
    most, least
        Maximum number of the most and of the least certain regions.
    """

    side: int
    most: int
    least: int

    def pick(self, cls: ClassReport) -> tuple[list[GalleryItem], list[GalleryItem]]:
        """Select the most certain regions of a class, and of the others the least certain, by increasing certainty."""
        rest = [*cls.least_certain, *reversed(cls.most_certain[self.most :])]
        return list(cls.most_certain[: self.most]), rest[: self.least]

    def data_uri(self, item: GalleryItem) -> str:
        """Encode the picture of a region as a data URI."""
        return "data:image/webp;base64," + base64.b64encode(thumbnail(item.image, item.mask, self.side)).decode()

    def total_size(self, items: Sequence[GalleryItem]) -> float:
        """Estimate the size of pictures in bytes of base64, from a sample of them."""
        return estimate_size(items, self.data_uri)


def estimate_size(items: Sequence[T], encode: Callable[[T], str]) -> float:
    """Estimate the size of encoded pictures in bytes, from a sample of them."""
    sample = items[:: max(1, len(items) // SAMPLE)]
    return sum(len(encode(item)) for item in sample) * len(items) / max(len(sample), 1)


# 168 pixels are shown as 112, for screens with a high pixel density
LEVELS = (
    Gallery(168, MOST_CERTAIN, LEAST_CERTAIN),
    Gallery(112, MOST_CERTAIN, LEAST_CERTAIN),
    Gallery(112, MOST_CERTAIN // 2, LEAST_CERTAIN // 2),
    Gallery(112, 2, 1),
    Gallery(80, 1, 1),
)


def fitting(products: Sequence[ProductReport], budget: int = BUDGET) -> Gallery:
    """Choose the first level whose pictures fit the budget; the last level if none does.

    Parameters
    ----------
    products
        Products of the report.
    budget
        Maximum size of all pictures in bytes of base64, estimated from a sample.
    """
    for level in LEVELS:
        items = [item for product in products for cls in product.classes for part in level.pick(cls) for item in part]
        if level.total_size(items) <= budget:
            return level
    return LEVELS[-1]
