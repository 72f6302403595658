"""Partitions of a growing archive: immutable sets of images, made when the images are first seen.

    <output>/partitions/<product>/00000-<id>.parquet                of `mode: classify`
    <output>/partitions/<product>/<key>/00000-<id>[-sample].parquet of discoveries; the key is that of what is listed

A file has rows of `listing`, with the columns `mark`, the digest of the row and of the stamps of its files, and `day`,
the date on which the image was captured, or else that of its file. A listing is
compared with all partitions: images with an unknown mark become a new partition. An image belongs to the newest
partition that has it; in earlier ones it is superseded, and an image that is no longer listed is deleted. Partitions
themselves never change; `index.parquet` has what is compared of all of them. A sample is a partition that a discovery
looks at, with its normal images (see `samples.py`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.data.listed import TableRows, read_listing
from ancd_ray.data.store import Folder, digest
from ancd_ray.data.tables import SCHEMAS, conform
from ancd_ray.jobs.archive import ProductListing

FOLDER = "partitions"
_MARK, _DAY = "mark", "day"
_SAMPLE = "-sample"
_DIGEST = b"digest"
_INDEX = "index.parquet"
_FILES = b"partitions"  # the files that the index covers
_INDEXED = ("image_id", "number", _MARK)
_EMPTY = pa.schema(zip(_INDEXED, (pa.string(), pa.int32(), pa.string()), strict=True)).empty_table()


@dataclass(frozen=True)
class Partition:
    """A set of images.

    Parameters
    ----------
    number, id
        Its place in the order of partitions, and the digest of its images.
    file
        URI of its listing.
    images
        Number of its query images.
    gone
        Ids of its query images that are superseded or deleted now.
    is_sample
        Whether a discovery looks at it.
    listing
        Its listing with marks, if it is not written yet.
    """

    number: int
    id: str
    file: str
    images: int
    gone: frozenset[str] = frozenset()
    is_sample: bool = False
    listing: pa.Table | None = None

    @property
    def is_new(self) -> bool:
        """Whether it is not written yet."""
        return self.listing is not None

    @property
    def left(self) -> int:
        """Number of its images that are neither superseded nor deleted."""
        return self.images - len(self.gone)

    def write(self) -> None:
        """Write its listing, if it is new."""
        if self.listing is not None:
            place, _, name = self.file.rpartition("/")
            Folder(place).write_table(name, self.listing)

    def read_images(self) -> set[str]:
        """Read the ids of its query images."""
        rows = self._read().select(["image_id", "role"])
        return set(rows.column("image_id").filter(pc.equal(rows.column("role"), "query")).to_pylist())

    def read(self) -> tuple[TableRows, str]:
        """Read the rows of its listing, and the digest that a sample has of it."""
        table = self._read()
        digest_of_sample = (table.schema.metadata or {}).get(_DIGEST, b"").decode()
        return TableRows(conform(table.select(SCHEMAS["listing"].names), SCHEMAS["listing"])), digest_of_sample

    def read_days(self) -> pa.Table:
        """Read the columns `image_id` and `day` (null if nothing says it) of its images."""
        return self._read().select(["image_id", _DAY])

    def _read(self) -> pa.Table:
        if self.listing is not None:
            return self.listing
        place, _, name = self.file.rpartition("/")
        return read_listing(Folder(place), name)


@dataclass(frozen=True)
class Compared:
    """A listing compared with the stored partitions of a product.

    Parameters
    ----------
    folder
        Folder of the partitions.
    rows
        Rows of the listing.
    marks, stamps
        Mark of each row, and the stamps of its files.
    stored
        The partitions in order.
    number_N
        For each row the number of the partition that its image belongs to: that of the next partition if it is new, −1
        if it is no query image.
    deleted
        Number of images of the partitions that are no longer listed.
    """

    folder: Folder
    rows: TableRows
    marks: pa.Array
    stamps: pa.ChunkedArray
    stored: Sequence[Partition]
    number_N: NDArray[np.int64]
    deleted: int

    @property
    def divided(self) -> list[Partition]:
        """All partitions, the last of which has the new images, if there are any."""
        return [*self.stored, *([self.make_partition(self.is_new_N, self.next)] if self.is_new_N.any() else [])]

    @property
    def is_new_N(self) -> NDArray[np.bool_]:
        """Whether no partition has the image of a row, or only in another state."""
        is_new_N: NDArray[np.bool_] = self.number_N == self.next
        return is_new_N

    @property
    def next(self) -> int:
        """Number of the next partition."""
        return self.stored[-1].number + 1 if self.stored else 0

    def make_partition(self, is_in_N: NDArray[np.bool_], number: int, digest_of_sample: str = "") -> Partition:
        """Make a partition of some rows; with the digest of its listing it is a sample."""
        rows, marks = self.rows.filter(pa.array(is_in_N)).table, self.marks.filter(pa.array(is_in_N))
        pairs = zip(rows.column("image_id").to_pylist(), marks.to_pylist(), strict=True)
        id_ = (digest_of_sample or digest(sorted([image, mark] for image, mark in pairs)))[:12]
        listing = conform(rows, SCHEMAS["listing"]).append_column(_MARK, marks)
        pairs = zip(_iterate(rows.column("captured_at")), _iterate(self.stamps.filter(pa.array(is_in_N))), strict=True)
        listing = listing.append_column(_DAY, pa.array((_find_day(*pair) for pair in pairs), pa.date32()))
        file = f"{self.folder}/{number:05d}-{id_}{_SAMPLE if digest_of_sample else ''}.parquet"
        if digest_of_sample:
            listing = listing.replace_schema_metadata({**listing.schema.metadata, _DIGEST: digest_of_sample})
        n_query = int((self.number_N[is_in_N] >= 0).sum())
        return Partition(number, id_, file, n_query, is_sample=bool(digest_of_sample), listing=listing)

    def without(self, is_taken_N: NDArray[np.bool_]) -> list[Partition]:
        """Return the stored partitions as they are when newer ones have the images of some rows."""
        images = self.rows.table.column("image_id")
        taken = {
            each.number: images.filter(pa.array(is_taken_N & (self.number_N == each.number))).to_pylist()
            for each in self.stored
        }
        return [replace(each, gone=each.gone.union(taken[each.number])) for each in self.stored]

    def is_outdated(self) -> bool:
        """Whether another job has written partitions since."""
        return len(_list_files(self.folder)) != len(self.stored)


def compare(folder: Folder, listing: ProductListing) -> Compared:
    """Compare a listing with the partitions in a folder.

    Parameters
    ----------
    folder
        Folder of the product's partitions.
    listing
        Today's images, with unique ids.

    Raises
    ------
    StoreError
        A partition cannot be read.
    """
    stamps = listing.stamps
    marks = pa.array(digest([row, stamp])[:16] for row, stamp in zip(listing.rows, _iterate(stamps), strict=True))
    rows = listing.rows.table
    is_query = pc.equal(rows.column("role"), "query")
    names = _list_files(folder)
    index = _read_index(folder, names).combine_chunks()
    image_M, number_M, mark_M = (index.column(name).combine_chunks() for name in _INDEXED)
    latest = index.group_by("image_id").aggregate([("number", "max")])
    newest_M = latest.column("number_max").take(pc.index_in(image_M, latest.column("image_id").combine_chunks()))
    is_newest = pc.equal(number_M, newest_M)
    known, known_number, known_mark = (column.filter(is_newest) for column in (image_M, number_M, mark_M))
    at = pc.index_in(rows.column("image_id"), known)
    is_same = pc.fill_null(pc.equal(known_mark.take(at), marks), fill_value=False)
    next_ = int(names[-1].partition("-")[0]) + 1 if names else 0
    number = pc.if_else(pc.invert(is_query), -1, pc.if_else(is_same, pc.fill_null(known_number.take(at), -1), next_))
    left = rows.column("image_id").filter(pc.and_(is_query, is_same)).combine_chunks()
    is_gone = pc.invert(pc.and_(is_newest, pc.is_in(image_M, left)))
    gone: dict[int, list[str]] = {}
    for image, part in zip(image_M.filter(is_gone).to_pylist(), number_M.filter(is_gone).to_pylist(), strict=True):
        gone.setdefault(part, []).append(image)
    sizes = Counter(number_M.to_numpy().tolist())
    stored = []
    for name in names:
        own, id_ = int(name.partition("-")[0]), name.removesuffix(".parquet").partition("-")[2]
        is_sample = id_.endswith(_SAMPLE)
        file = f"{folder}/{name}"
        stored.append(
            Partition(own, id_.removesuffix(_SAMPLE), file, sizes[own], frozenset(gone.get(own, ())), is_sample)
        )
    deleted = pc.sum(pc.invert(pc.is_in(known, rows.column("image_id").filter(is_query).combine_chunks()))).as_py() or 0
    return Compared(folder, listing.rows, marks, stamps, stored, number.to_numpy().astype(np.int64), deleted)


def _find_day(captured_at: str | None, stamp: str | None) -> date | None:
    """Return the date of a capture time (ISO 8601, or digits of that order), or else that of the file by UTC."""
    digits = re.match(r"\s*(\d{4})\D?(\d{2})\D?(\d{2})", captured_at or "")
    with suppress(ValueError):
        if digits:
            return date(*map(int, digits.groups()))
    time_ns = re.match(r"\d+@(\d+)", stamp or "")
    with suppress(ValueError, OverflowError, OSError):
        if time_ns:
            return datetime.fromtimestamp(int(time_ns[1]) / 1e9, timezone.utc).date()
    return None


def _iterate(column: pa.ChunkedArray) -> Iterator[Any]:
    """Iterate over a column, of which a part exists as Python objects at a time."""
    for start in range(0, len(column), 8192):
        yield from column[start : start + 8192].to_pylist()


def _read_index(folder: Folder, names: Sequence[str]) -> pa.Table:
    """Read image, number of the partition and mark of the query images of all partitions, in their order.

    They are in one file, of which what is missing is read from the partitions: the file is only faster.
    """
    index = _EMPTY
    if len(names) > 1 and folder.exists(_INDEX):
        with suppress(pa.ArrowInvalid, pa.ArrowKeyError, OSError, KeyError, ValueError):
            found = folder.read_table(_INDEX)
            covered = json.loads(found.schema.metadata[_FILES])
            if covered == names[: len(covered)]:
                index, names = found, names[len(covered) :]
    return pa.concat_tables([index.replace_schema_metadata(None), *(_index_partition(folder, name) for name in names)])


def _index_partition(folder: Folder, name: str) -> pa.Table:
    table = read_listing(folder, name, ["image_id", "role", _MARK])
    table = table.filter(pc.equal(table.column("role"), "query"))
    number = pa.array([int(name.partition("-")[0])] * table.num_rows, pa.int32())
    return pa.table([table.column("image_id"), number, table.column(_MARK)], schema=_EMPTY.schema)


def write_partitions(partitions: Sequence[Partition]) -> None:
    """Write the partitions of a folder that are new, in their order, and the index of all of them."""
    if not any(partition.is_new for partition in partitions):
        return
    for partition in partitions:
        partition.write()
    folder = Folder(partitions[0].file.rpartition("/")[0])
    names = _list_files(folder)
    if len(names) > 1:
        index = _read_index(folder, names)
        folder.write_table(_INDEX, index.replace_schema_metadata({_FILES: json.dumps(names)}))


def _list_files(folder: Folder) -> list[str]:
    """List the files of partitions in their order."""
    return sorted(name for name in folder.names() if name.endswith(".parquet") and name != _INDEX)
