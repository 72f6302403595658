"""Partitions of a growing archive: immutable sets of images, made when the images are first seen.

    <output>/partitions/<product>/00000-<id>.parquet                of `mode: classify`
    <output>/partitions/<product>/<key>/00000-<id>[-sample].parquet of discoveries; the key is that of what is listed

A file has rows of `listing`, with the column `mark`: the digest of the row and of the stamps of its files. A listing is
compared with all partitions: images with an unknown mark become a new partition. An image belongs to the newest
partition that has it; in earlier ones it is superseded, and an image that is no longer listed is deleted. Partitions
themselves never change; `index.parquet` has what is compared of all of them. A sample is a partition that a discovery
looks at, with its normal images (see `samples.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.errors import first_line
from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder, digest
from ancd_ray.data.tables import SCHEMAS, conform

FOLDER = "partitions"
_MARK = "mark"
_SAMPLE = "-sample"
_DIGEST = b"digest"
_INDEX = "index.parquet"
_FILES = b"partitions"  # the files that the index covers
_INDEXED = ("image_id", "number", _MARK)
_EMPTY = pa.schema(zip(_INDEXED, (pa.string(), pa.int32(), pa.string()), strict=True)).empty_table()

Row = Mapping[str, Any]  # of `listing`


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
        rows, _ = self.read()
        return {row["image_id"] for row in rows if row["role"] == "query"}

    def read(self) -> tuple[list[dict[str, Any]], str]:
        """Read the rows of its listing, and the digest that a sample has of it."""
        table = self.listing
        if table is None:
            place, _, name = self.file.rpartition("/")
            table = _read(Folder(place), name)
        return table.drop_columns([_MARK]).to_pylist(), (table.schema.metadata or {}).get(_DIGEST, b"").decode()


@dataclass(frozen=True)
class Compared:
    """A listing compared with the stored partitions of a product.

    Parameters
    ----------
    folder
        Folder of the partitions.
    stored
        The partitions in order.
    new
        Rows of today's query images that none of them has, or in another state.
    marks
        Marks of today's rows by image.
    deleted
        Number of images of the partitions that are no longer listed.
    newest
        Number of the newest partition of each image.
    """

    folder: Folder
    stored: Sequence[Partition]
    new: Sequence[Row]
    marks: Mapping[str, str]
    deleted: int
    newest: Mapping[str, int]

    @property
    def divided(self) -> list[Partition]:
        """All partitions, the last of which has the new images, if there are any."""
        return [*self.stored, *([self.make_partition(self.new, self.next)] if self.new else [])]

    @property
    def next(self) -> int:
        """Number of the next partition."""
        return self.stored[-1].number + 1 if self.stored else 0

    def make_partition(self, rows: Sequence[Row], number: int, digest_of_sample: str = "") -> Partition:
        """Make a partition of rows; with the digest of its listing it is a sample."""
        images = [row["image_id"] for row in rows]
        id_ = (digest_of_sample or digest(sorted([image, self.marks[image]] for image in images)))[:12]
        listing = conform(rows, SCHEMAS["listing"])
        listing = listing.append_column(_MARK, pa.array([self.marks[image] for image in images], pa.string()))
        file = f"{self.folder}/{number:05d}-{id_}{_SAMPLE if digest_of_sample else ''}.parquet"
        if digest_of_sample:
            listing = listing.replace_schema_metadata({**listing.schema.metadata, _DIGEST: digest_of_sample})
        n_query = sum(row["role"] == "query" for row in rows)
        return Partition(number, id_, file, n_query, is_sample=bool(digest_of_sample), listing=listing)

    def without(self, images: Collection[str]) -> list[Partition]:
        """Return the stored partitions as they are when newer ones have these images."""
        superseded: dict[int, set[str]] = {}
        for image in images:
            if image in self.newest:
                superseded.setdefault(self.newest[image], set()).add(image)
        return [replace(each, gone=each.gone | superseded.get(each.number, set())) for each in self.stored]

    def is_outdated(self) -> bool:
        """Whether another job has written partitions since."""
        return len(_list_files(self.folder)) != len(self.stored)


def compare(folder: Folder, rows: Sequence[Row], stamps: Mapping[str, str]) -> Compared:
    """Compare a listing with the partitions in a folder.

    Parameters
    ----------
    folder
        Folder of the product's partitions.
    rows
        Rows of the table `listing`, with unique ids.
    stamps
        Stamps of the files of each image, by its id.

    Raises
    ------
    StoreError
        A partition cannot be read.
    """
    marks = {row["image_id"]: digest([row, stamps[row["image_id"]]])[:16] for row in rows}
    query = [row for row in rows if row["role"] == "query"]
    names = _list_files(folder)
    index = _read_index(folder, names)
    images, numbers, known = (index.column(name).to_pylist() for name in _INDEXED)
    newest = dict(zip(images, numbers, strict=True))  # the last of each image counts
    mark_of = dict(zip(images, known, strict=True))
    new = [row for row in query if mark_of.get(row["image_id"]) != marks[row["image_id"]]]
    left = {row["image_id"] for row in query} - {row["image_id"] for row in new}
    gone: dict[int, set[str]] = {}
    for image, number in zip(images, numbers, strict=True):
        if newest[image] != number or image not in left:
            gone.setdefault(number, set()).add(image)
    sizes = Counter(numbers)
    stored = []
    for name in names:
        number, id_ = int(name.partition("-")[0]), name.removesuffix(".parquet").partition("-")[2]
        lost = frozenset(gone.get(number, ()))
        file, is_sample = f"{folder}/{name}", id_.endswith(_SAMPLE)
        stored.append(Partition(number, id_.removesuffix(_SAMPLE), file, sizes[number], lost, is_sample))
    return Compared(folder, stored, new, marks, len(newest.keys() - {row["image_id"] for row in query}), newest)


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
    table = _read(folder, name, ["image_id", "role", _MARK])
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


def _read(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read a partition, or some of its columns.

    Raises
    ------
    StoreError
        Its file is damaged.
    """
    try:
        return folder.read_table(name, columns)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and not folder.is_local:
            raise  # a store that does not answer says nothing about the file
        raise StoreError(
            f"{folder}/{name}: the listing of this partition is damaged ({first_line(error)}); delete the file and "
            "submit the job again, which makes it anew from the archive"
        ) from error
