"""How many regions of a class are shown, and how large, so that a report stays a file one can mail.

The richest of a few levels is taken whose pictures fit the budget: many classes get smaller and then fewer pictures.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from ancd_ray.jobs.report.model import LEAST_CERTAIN, MOST_CERTAIN, ClassReport, GalleryItem, ProductReport
from ancd_ray.jobs.report.thumbnails import thumbnail

BUDGET = 8_000_000  # bytes of base64: with plotly.js (4.8 MB) and the figures, a report stays near 15 MB at most
SAMPLE = 48  # pictures that the size of all is estimated from


@dataclass(frozen=True)
class Gallery:
    """Side of a picture in pixels, and how many of the most and of the least certain regions a class shows."""

    side: int
    most: int
    least: int

    def pick(self, cls: ClassReport) -> tuple[list[GalleryItem], list[GalleryItem]]:
        """The most certain regions of a class, and of the others the least certain, the least certain first."""
        rest = [*cls.least_certain, *reversed(cls.most_certain[self.most :])]
        return list(cls.most_certain[: self.most]), rest[: self.least]

    def data_uri(self, item: GalleryItem) -> str:
        """The picture of a region, ready for the `src` of an image."""
        return "data:image/webp;base64," + base64.b64encode(thumbnail(item.image, item.mask, self.side)).decode()


# 168 pixels are shown as 112, so they are crisp on a dense screen
LEVELS = (
    Gallery(168, MOST_CERTAIN, LEAST_CERTAIN),
    Gallery(112, MOST_CERTAIN, LEAST_CERTAIN),
    Gallery(112, MOST_CERTAIN // 2, LEAST_CERTAIN // 2),
    Gallery(112, 2, 1),
    Gallery(80, 1, 1),
)


def fitting(products: Sequence[ProductReport], budget: int = BUDGET) -> Gallery:
    """The richest level whose pictures take `budget` bytes at most, estimated from a sample; else the poorest level."""
    for level in LEVELS:
        items = [item for product in products for cls in product.classes for part in level.pick(cls) for item in part]
        sample = items[:: max(1, len(items) // SAMPLE)]
        size = sum(len(level.data_uri(item)) for item in sample)
        if size * len(items) <= budget * len(sample):
            return level
    return LEVELS[-1]
