"""The sample of an archive that a discovery looks at; all other images are classified with the model that it leaves.

A discovery looks at no more than `discovery.max_regions` query images and `detector.max_normals` normal ones, chosen by
the hash of their ids, so that its cost is bounded. An archive that is smaller is its own sample. The sample is stored
with the partitions and stays the same while the archive grows, and so do the results that rest on it. It is drawn anew
- if the archive has grown by the share `discovery.refit_when_grown_by` (`--refit`: by anything),
- if images of it are gone or changed, and the discovery has still to be done, or if none of them is left.

Query images are drawn in equal numbers from each partition, as far as it has them: a night counts as much as the first
load, and what is new is seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.config.job import Job
from ancd_ray.data.layouts import ProductConfig
from ancd_ray.data.store import Folder, digest
from ancd_ray.jobs.archive import Archive, ProductListing
from ancd_ray.jobs.partitions import FOLDER, Compared, Partition, compare, write_partitions


@dataclass(frozen=True)
class Sample:
    """A sample, and the other partitions of the archive.

    Parameters
    ----------
    partition
        The sample as a partition.
    listing
        Listing of its images, normal ones included.
    others
        The other partitions in order; an image belongs to one of them or to the sample.
    compared
        Today's listing compared with the stored partitions.
    """

    partition: Partition
    listing: ProductListing
    others: Sequence[Partition]
    compared: Compared

    @property
    def is_all(self) -> bool:
        """Whether it has all images of the archive, and no others."""
        return not self.partition.gone and not self.n_others

    @property
    def n_others(self) -> int:
        """Number of images outside."""
        return sum(each.left for each in self.others)

    def describe(self) -> str | None:
        """Describe in one line what is outside; None if nothing is."""
        if self.is_all:
            return None
        gone, images = len(self.partition.gone), self.partition.images
        others = f"{self.n_others:,} image{' is' if self.n_others == 1 else 's are'}"
        line = f"{others} classified with the model of the {images:,} that the discovery looks at"
        return f"{line}{f', of which {gone:,} are gone or changed' if gone else ''} (--refit discovers anew)"

    def write(self) -> None:
        """Write the partitions that are new; the sample last, which everything else refers to."""
        write_partitions([*self.others, self.partition])


def find_sample(
    job: Job, product: ProductConfig, archive: Archive, is_done: Callable[[ProductListing], bool]
) -> Sample:
    """Find the sample of a product, or draw one; all plans with the same archive get the same one.

    Parameters
    ----------
    job
        Job with the overrides of the product.
    product
        The product.
    archive
        Today's listings.
    is_done
        Whether the discovery over a listing is finished.

    Raises
    ------
    LayoutError, StoreError
        The product cannot be listed, or a partition cannot be read.
    """
    folder = _locate(job, product)
    if folder.uri not in archive.samples:
        listing = archive.product(product, job.detector.reads_maps)
        archive.samples[folder.uri] = _find_or_draw(job, listing, folder, is_done)
    return archive.samples[folder.uri]


def _locate(job: Job, product: ProductConfig) -> Folder:
    """Return the folder of the partitions, which depends on what of the archive is listed and how much is drawn."""
    listed = product.model_dump(mode="json", exclude={"overrides", "novel"})
    drawn = [job.discovery.max_regions, job.detector.n_normals, job.detector.reads_maps]
    return Folder(job.output_root) / FOLDER / product.name / digest([job.data.root, listed, drawn])[:12]


def _find_or_draw(
    job: Job, listing: ProductListing, folder: Folder, is_done: Callable[[ProductListing], bool]
) -> Sample:
    compared = compare(folder, listing)
    stored = next((each for each in reversed(compared.stored) if each.is_sample), None)
    if stored is None or not stored.left or _has_grown(job, compared, stored):
        return _draw(job, compared, listing)
    rows, digest_ = stored.read()
    images = listing.images.filter(pc.is_in(listing.image_ids, rows.table.column("image_id").combine_chunks()))
    own = ProductListing(images, rows, digest_, listing.account, listing.config)
    if stored.gone and not is_done(own):
        return _draw(job, compared, listing)
    return Sample(stored, own, [each for each in compared.divided if each is not stored], compared)


def _has_grown(job: Job, compared: Compared, sample: Partition) -> bool:
    limit = job.discovery.refit_when_grown_by
    if limit is None:
        return False
    later = sum(each.left for each in compared.stored if each.number > sample.number) + int(compared.is_new_N.sum())
    seen = sum(each.left for each in compared.stored if each.number <= sample.number)
    changed = later + len(sample.gone)
    return changed > 0 and changed >= limit * seen


def _draw(job: Job, compared: Compared, listing: ProductListing) -> Sample:
    id_N = listing.rows.table.column("image_id").to_numpy()
    groups = [np.flatnonzero(compared.number_N == number) for number in np.unique(compared.number_N) if number >= 0]
    shares = divide_evenly([len(group) for group in groups], job.discovery.max_regions)
    is_chosen_N = np.zeros(len(id_N), bool)
    for group, n in zip(groups, shares, strict=True):
        is_chosen_N[_take(group, id_N, n)] = True
    is_query_N = compared.number_N >= 0
    rest_N = compared.is_new_N & ~is_chosen_N
    others = [
        *compared.without(is_chosen_N),
        *([compared.make_partition(rest_N, compared.next)] if rest_N.any() else []),
    ]
    is_chosen_N[_take(np.flatnonzero(~is_query_N), id_N, job.detector.n_normals)] = True
    own = listing.select(is_chosen_N)
    partition = compared.make_partition(is_chosen_N, compared.next + bool(rest_N.any()), own.digest)
    return Sample(partition, own, others, compared)


def divide_evenly(sizes: Sequence[int], total: int) -> list[int]:
    """Divide a number among groups: equal shares, but none larger than its group."""
    shares = [0] * len(sizes)
    open_ = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for done, i in enumerate(open_):
        shares[i] = min(sizes[i], total // (len(open_) - done))
        total -= shares[i]
    return shares


def _take(rows: NDArray[np.intp], id_N: NDArray[np.object_], n: int | None) -> NDArray[np.intp]:
    """Take n rows by the hash of their ids; the ids themselves divide shards and features already."""
    if n is None or len(rows) <= n:
        return rows
    keys = [hashlib.sha256(f"sample\n{id_N[row]}".encode()).digest() for row in rows]
    return rows[sorted(range(len(rows)), key=keys.__getitem__)[:n]]
