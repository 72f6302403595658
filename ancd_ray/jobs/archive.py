"""Listings of the products of an archive and their samples, shared by several plans."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.config.job import Job
from ancd_ray.data.layouts import Account, ProductConfig, list_product
from ancd_ray.data.layouts.maps import pair_maps
from ancd_ray.data.listed import ListedImages, TableRows, digest_listing
from ancd_ray.data.roles import GOOD, Classes
from ancd_ray.stages.catalog import make_image_id, make_listing_rows

if TYPE_CHECKING:
    from ancd_ray.jobs.samples import Sample

AUTO = 0  # number of classes that a step estimates


@dataclass(frozen=True)
class ProductListing:
    """The images of a product, as rows of `listing`, and their digest."""

    images: ListedImages
    rows: TableRows
    digest: str
    account: Account
    config: ProductConfig

    @cached_property
    def image_ids(self) -> pa.Array:
        """Ids of `images`."""
        return pa.array([make_image_id(self.config.name, path) for path in self.images.column("path").to_pylist()])

    @property
    def stamps(self) -> pa.ChunkedArray:
        """Stamps of the files of each row."""
        return self.images.column("stamp").take(pc.index_in(self.rows.table.column("image_id"), self.image_ids))

    def select(self, is_chosen: NDArray[np.bool_]) -> ProductListing:
        """Return the listing of some of its rows."""
        if is_chosen.all():
            return self
        rows = self.rows.filter(pa.array(is_chosen))
        images = self.images.filter(pc.is_in(self.image_ids, rows.table.column("image_id").combine_chunks()))
        return ProductListing(images, rows, digest_listing(rows, images), self.account, self.config)

    @property
    def labels(self) -> tuple[str, ...]:
        """Sorted labels of the query images; of a base set, its classes."""
        rows = self.rows.table
        labels = rows.column("label").filter(pc.not_equal(rows.column("role"), "normal"))
        return tuple(sorted(label for label in labels.unique().to_pylist() if label))

    def classes(self, job: Job, product: ProductConfig, known: tuple[str, ...]) -> Classes:
        """Return the classes to look for: the known ones, the number of novel ones, and whether one is normal.

        Raises
        ------
        ValueError
            `classes.novel` is `from_labels`, and there are no labels.
        """
        labels = self.labels
        seen = GOOD in labels if labels else GOOD not in product.exclude
        has_normal = seen if job.classes.normal == "auto" else job.classes.normal == "yes"
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
        return Classes(known, len({*labels, GOOD} if has_normal else labels), has_normal)


class Archive:
    """Listings of the products below a root, and the samples that were found of them."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.samples: dict[str, Sample] = {}  # by their folders
        self._listings: dict[tuple[str, bool], ProductListing] = {}

    def base(self, product: ProductConfig) -> ProductListing:
        """List the defect images of a base set.

        Raises
        ------
        LayoutError
            The folder is missing, or has no image of the layout.
        """
        return self._find(product, is_base=True, with_maps=False)

    def product(self, product: ProductConfig, with_maps: bool) -> ProductListing:
        """List the images of a product, with their anomaly maps if the detector reads them.

        Raises
        ------
        LayoutError
            The folder or the maps are missing, or the folder has no image of the layout.
        """
        return self._find(product, is_base=False, with_maps=with_maps)

    def _find(self, product: ProductConfig, is_base: bool, with_maps: bool) -> ProductListing:
        key = (product.name, with_maps)
        if key not in self._listings:
            self._listings[key] = self._list(product, is_base, with_maps)
        return self._listings[key]

    def _list(self, product: ProductConfig, is_base: bool, with_maps: bool) -> ProductListing:
        listing, account = list_product(product, self.root)
        if is_base:
            labels = listing.column("label")
            is_defect = pc.fill_null(pc.not_equal(labels, GOOD), fill_value=True)
            listing = listing.filter(pc.and_(pc.equal(listing.column("role"), "query"), is_defect))
        if with_maps:
            listing, notes = pair_maps(product, self.root, listing)
            account = replace(account, notes=(*account.notes, *notes))
        rows = make_listing_rows(product.name, listing, is_base, product.mask_threshold)
        return ProductListing(listing, rows, digest_listing(rows, listing), account, product)
