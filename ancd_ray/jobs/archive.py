"""What an archive holds of each product: listed once, however many plans are laid out over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.data.layouts import ProductConfig, list_product
from ancd_ray.data.layouts.maps import pair_maps
from ancd_ray.data.roles import GOOD, Classes, ListedImage
from ancd_ray.data.store import digest
from ancd_ray.detectors.base import DetectorConfig
from ancd_ray.stages.catalog import listing_rows

AUTO = 0  # a number of classes that a step of its own estimates


@dataclass(frozen=True)
class Holding:
    """The images of a product as the catalog step takes them, and their digest."""

    listing: Sequence[ListedImage]
    rows: Sequence[Mapping[str, Any]]
    digest: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of what is to be sorted (of a base set: its classes), sorted."""
        return tuple(sorted({image.label for image in self.listing if image.role == "query" and image.label}))

    def classes(self, job: Job, product: ProductConfig, known: tuple[str, ...]) -> Classes:
        """How many classes to look for beside the known ones, and whether the first of them means "normal".

        Raises:
            ValueError: the number is to come from labels that are not there.
        """
        labels = self.labels
        has_normal = GOOD in labels if labels else GOOD not in product.exclude
        if product.novel is not None:
            return Classes(known, product.novel, has_normal)
        if job.classes.novel == "auto":
            return Classes(known, AUTO, has_normal)
        if job.classes.novel != "from_labels":
            return Classes(known, job.classes.novel, has_normal)
        if not labels:
            raise ValueError(
                f"product {product.name}: classes.novel=from_labels, but nothing is labelled; "
                "set classes.novel to the number of classes to look for, the normal one included"
            )
        return Classes(known, len(labels), has_normal)


class Archive:
    """The listings below a root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._holdings: dict[tuple[str, bool], Holding] = {}

    def base(self, product: ProductConfig) -> Holding:
        """A base set: of its images, those of defects.

        Raises:
            LayoutError: its folder is missing, or holds nothing of its layout.
        """
        return self._hold(product, is_base=True, with_maps=False)

    def product(self, product: ProductConfig, detector: DetectorConfig) -> Holding:
        """A product, with the anomaly maps of its images where the detector takes them from files.

        Raises:
            LayoutError: as for `base`, or the maps are not there.
        """
        return self._hold(product, is_base=False, with_maps=detector.needs == "maps")

    def _hold(self, product: ProductConfig, is_base: bool, with_maps: bool) -> Holding:
        key = (product.name, with_maps)
        if key not in self._holdings:
            self._holdings[key] = self._list(product, is_base, with_maps)
        return self._holdings[key]

    def _list(self, product: ProductConfig, is_base: bool, with_maps: bool) -> Holding:
        listing = list_product(product, self.root)
        maps: Mapping[str, str] = {}
        if is_base:
            listing = [image for image in listing if image.role == "query" and image.label != GOOD]
        if with_maps:
            listing, maps = pair_maps(product, self.root, listing)
        rows = listing_rows(product.name, listing, is_base, maps)
        stamps = sorted([image.path, image.stamp] for image in listing)
        return Holding(listing, rows, digest([rows, stamps]))
