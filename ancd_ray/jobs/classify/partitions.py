"""Partitions of a growing archive: immutable sets of images, made when the images are first seen.

    <output>/partitions/<product>/00000-<id>.parquet      rows of `listing`, with the column `mark`

The mark of an image is the digest of its row and of the stamps of its files. A listing is compared with all partitions:
images with an unknown mark become a new partition. An image belongs to the newest partition that has it; in earlier
ones it is superseded, and an image that is no longer listed is deleted. Partitions themselves never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ancd_ray.config.errors import first_line
from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder, digest
from ancd_ray.data.tables import SCHEMAS, conform

FOLDER = "partitions"
_MARK = "mark"


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
        Number of its images.
    gone
        Ids of its images that are superseded or deleted now.
    listing
        Its listing with marks, if it is not written yet.
    """

    number: int
    id: str
    file: str
    images: int
    gone: frozenset[str] = frozenset()
    listing: pa.Table | None = None

    @property
    def is_new(self) -> bool:
        """Whether it is not written yet."""
        return self.listing is not None

    @property
    def is_empty(self) -> bool:
        """Whether none of its images is left."""
        return len(self.gone) == self.images

    def write(self) -> None:
        """Write its listing, if it is new."""
        if self.listing is not None:
            place, _, name = self.file.rpartition("/")
            Folder(place).write_table(name, self.listing)


def find_partitions(
    folder: Folder, rows: Sequence[Mapping[str, Any]], stamps: Mapping[str, str]
) -> tuple[list[Partition], int]:
    """Compare a listing with the partitions of a product.

    Parameters
    ----------
    folder
        Folder of the product's partitions.
    rows
        Rows of the table `listing`, with unique ids.
    stamps
        Stamps of the files of each image, by its id.

    Returns
    -------
    partitions : list of Partition
        All partitions in order, the last of which is new if images are.
    deleted : int
        Number of images of earlier listings that are no longer listed.
    """
    marks = {row["image_id"]: digest([row, stamps[row["image_id"]]])[:16] for row in rows}
    known: list[tuple[str, dict[str, str]]] = []
    newest: dict[str, int] = {}
    for number, name in enumerate(name for name in folder.names() if name.endswith(".parquet")):
        table = _read_marks(folder, name).to_pydict()
        known.append((name, dict(zip(table["image_id"], table[_MARK], strict=True))))
        newest |= dict.fromkeys(known[-1][1], number)
    new = [row for row in rows if (i := row["image_id"]) not in newest or known[newest[i]][1][i] != marks[i]]
    newest |= dict.fromkeys((row["image_id"] for row in new), len(known))
    found = []
    for number, (name, marked) in enumerate(known):
        gone = frozenset(i for i in marked if newest[i] != number or i not in marks)
        found.append(Partition(number, _read_id(name), f"{folder}/{name}", len(marked), gone))
    if new:
        found.append(_make_partition(folder, len(known), new, marks))
    return found, sum(i not in marks for i in newest)


def _read_marks(folder: Folder, name: str) -> pa.Table:
    """Read the ids and marks of a partition.

    Raises
    ------
    StoreError
        Its file is damaged.
    """
    try:
        return folder.read_table(name, ["image_id", _MARK])
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and not folder.is_local:
            raise  # a store that does not answer says nothing about the file
        raise StoreError(
            f"{folder}/{name}: the listing of this partition is damaged ({first_line(error)}); delete the file and "
            "submit the job again, which makes it anew from the archive"
        ) from error


def _make_partition(
    folder: Folder, number: int, rows: Sequence[Mapping[str, Any]], marks: Mapping[str, str]
) -> Partition:
    id_ = digest(sorted([row["image_id"], marks[row["image_id"]]] for row in rows))[:12]
    column = pa.array([marks[row["image_id"]] for row in rows], pa.string())
    listing = conform(rows, SCHEMAS["listing"]).append_column(_MARK, column)
    return Partition(number, id_, f"{folder}/{number:05d}-{id_}.parquet", len(rows), listing=listing)


def _read_id(name: str) -> str:
    return name.removesuffix(".parquet").partition("-")[2]
