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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.data.layouts import ProductConfig
from ancd_ray.data.store import Folder, digest
from ancd_ray.detectors.base import FittedDetector
from ancd_ray.jobs.archive import Archive, ProductListing
from ancd_ray.jobs.partitions import FOLDER, Compared, Partition, compare, write_partitions
from ancd_ray.stages.catalog import make_image_id

Row = Mapping[str, Any]


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
        listing = archive.product(product, job.detector.needs)
        archive.samples[folder.uri] = _find_or_draw(job, listing, folder, is_done)
    return archive.samples[folder.uri]


def _locate(job: Job, product: ProductConfig) -> Folder:
    """Return the folder of the partitions, which depends on what of the archive is listed and how much is drawn."""
    listed = product.model_dump(mode="json", exclude={"overrides", "novel"})
    drawn = [job.discovery.max_regions, _max_normals(job), job.detector.needs == "maps"]
    return Folder(job.output_root) / FOLDER / product.name / digest([job.data.root, listed, drawn])[:12]


def _find_or_draw(
    job: Job, listing: ProductListing, folder: Folder, is_done: Callable[[ProductListing], bool]
) -> Sample:
    compared = compare(folder, listing.rows, listing.stamps)
    stored = next((each for each in reversed(compared.stored) if each.is_sample), None)
    if stored is None or not stored.left or _has_grown(job, compared, stored):
        return _draw(job, compared, listing)
    rows, digest_ = stored.read()
    ids = {row["image_id"] for row in rows}
    images = [image for image in listing.images if make_image_id(listing.config.name, image.path) in ids]
    own = replace(listing, images=images, rows=rows, digest=digest_)
    if stored.gone and not is_done(own):
        return _draw(job, compared, listing)
    return Sample(stored, own, [each for each in compared.divided if each is not stored], compared)


def _has_grown(job: Job, compared: Compared, sample: Partition) -> bool:
    limit = job.discovery.refit_when_grown_by
    if limit is None:
        return False
    later = sum(each.left for each in compared.stored if each.number > sample.number) + len(compared.new)
    seen = sum(each.left for each in compared.stored if each.number <= sample.number)
    changed = later + len(sample.gone)
    return changed > 0 and changed >= limit * seen


def _draw(job: Job, compared: Compared, listing: ProductListing) -> Sample:
    groups: dict[int, list[Row]] = {}
    changed = {row["image_id"] for row in compared.new}
    for row in listing.rows:
        if row["role"] == "query":
            number = compared.next if row["image_id"] in changed else compared.newest[row["image_id"]]
            groups.setdefault(number, []).append(row)
    shares = divide_evenly([len(rows) for rows in groups.values()], job.discovery.max_regions)
    chosen = [row for rows, n in zip(groups.values(), shares, strict=True) for row in _take(rows, n)]
    normals = _take([row for row in listing.rows if row["role"] != "query"], _max_normals(job))
    own = _select(listing, {row["image_id"] for row in (*chosen, *normals)})
    images = {row["image_id"] for row in chosen}
    rest = [row for row in compared.new if row["image_id"] not in images]
    others = [*compared.without(images), *([compared.make_partition(rest, compared.next)] if rest else [])]
    partition = compared.make_partition(own.rows, compared.next + bool(rest), own.digest)
    return Sample(partition, own, others, compared)


def divide_evenly(sizes: Sequence[int], total: int) -> list[int]:
    """Divide a number among groups: equal shares, but none larger than its group."""
    shares = [0] * len(sizes)
    open_ = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for done, i in enumerate(open_):
        shares[i] = min(sizes[i], total // (len(open_) - done))
        total -= shares[i]
    return shares


def _take(rows: Sequence[Row], n: int | None) -> Sequence[Row]:
    """Take n rows by the hash of their ids; the ids themselves divide shards and features already."""
    if n is None or len(rows) <= n:
        return rows
    return sorted(rows, key=lambda row: hashlib.sha256(f"sample\n{row['image_id']}".encode()).digest())[:n]


def _select(listing: ProductListing, ids: Iterable[str]) -> ProductListing:
    """Return the listing of some of its images."""
    kept = set(ids)
    if len(kept) == len(listing.rows):
        return listing
    rows = [row for row in listing.rows if row["image_id"] in kept]
    images = [image for image in listing.images if make_image_id(listing.config.name, image.path) in kept]
    return ProductListing.of(images, rows, listing.account, listing.config)


def _max_normals(job: Job) -> int | None:
    return job.detector.max_normals if isinstance(job.detector, FittedDetector) else None
