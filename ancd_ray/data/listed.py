"""Listings in columns: a million images as Python objects take gigabytes, as Arrow columns some 200 MB.

Both classes are sequences whose elements are made when they are asked for. Loops over them are fine; lists of all of
them are what is avoided.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice, pairwise
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.errors import first_line
from ancd_ray.data.location import StoreError
from ancd_ray.data.roles import ListedImage
from ancd_ray.data.store import Folder

_CHUNK = 8192  # elements that exist at a time
_COMBINED = 16  # chunks
_FIELDS = [field.name for field in fields(ListedImage)]
_SCHEMA = pa.schema([(name, pa.list_(pa.string()) if name == "mask_uris" else pa.string()) for name in _FIELDS])


class TableRows(Sequence[Mapping[str, Any]]):
    """The rows of an Arrow table as dicts, in an order of their own if it is given."""

    def __init__(self, table: pa.Table, order: pa.Array | None = None) -> None:
        self._stored, self._order = table, order

    @property
    def table(self) -> pa.Table:
        """The rows as a table, in their order."""
        return self._stored if self._order is None else self._stored.take(self._order)

    def filter(self, mask: Any) -> TableRows:
        """Return the rows for which a boolean column is true."""
        return TableRows(self.table.filter(mask))

    def __len__(self) -> int:
        return int(self._stored.num_rows) if self._order is None else len(self._order)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> TableRows: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | TableRows:
        if isinstance(at, int):
            i = range(len(self))[at]
            return next(iter(self[i : i + 1]))
        if self._order is None:
            return TableRows(_slice(self._stored, at))
        return TableRows(self._stored, self._order[at])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK].table.to_pylist()


class ListedImages(Sequence[ListedImage]):
    """Images of a listing in the order of their paths."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table  # a column for each field

    @classmethod
    def collect(cls, images: Iterable[ListedImage]) -> ListedImages:
        """Collect images, which may be an iterator, and sort them."""
        if isinstance(images, ListedImages):
            return images
        rest, parts, batches, is_sorted, previous = iter(images), [], [], True, ""
        while chunk := list(islice(rest, _CHUNK)):
            columns: dict[str, list[Any]] = {name: [getattr(image, name) for image in chunk] for name in _FIELDS}
            columns["mask_uris"] = [uris or None for uris in columns["mask_uris"]]
            batches.append(pa.RecordBatch.from_pydict(columns, _SCHEMA))
            is_sorted = is_sorted and all(a <= b for a, b in pairwise([previous, *columns["path"]]))
            previous = columns["path"][-1]
            if len(chunk) < _CHUNK or len(batches) == _COMBINED:
                parts.append(pa.Table.from_batches(batches, _SCHEMA).combine_chunks())  # buffers have room to grow
                batches = []
        table = pa.concat_tables([*parts, pa.Table.from_batches(batches, _SCHEMA)])
        return cls(table if is_sorted else table.sort_by("path"))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, at: int) -> ListedImage: ...
    @overload
    def __getitem__(self, at: slice) -> ListedImages: ...
    def __getitem__(self, at: int | slice) -> ListedImage | ListedImages:
        if isinstance(at, slice):
            return ListedImages(_slice(self.table, at))
        return next(iter(ListedImages(self.table.slice(range(len(self))[at], 1))))

    def __iter__(self) -> Iterator[ListedImage]:
        for batch in self.table.to_batches(max_chunksize=_CHUNK):
            columns = batch.to_pydict()
            columns["mask_uris"] = [tuple(uris or ()) for uris in columns["mask_uris"]]
            for values in zip(*(columns[name] for name in _FIELDS), strict=True):
                yield ListedImage(*values)

    def filter(self, mask: Any) -> ListedImages:
        """Return the images for which a boolean column is true."""
        return ListedImages(self.table.filter(mask))

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a field of all images as a column; of images without masks it is null."""
        return self.table.column(name)

    def make_rows(self, schema: pa.Schema, make_id: Callable[[str], str], **constant: Any) -> TableRows:
        """Make rows of a schema, sorted by the id that is made of their paths; other columns are fields or constant."""
        paths = self.column("path")
        ids = [pa.array(map(make_id, part.to_pylist()), pa.string()) for part in _divide(paths)]
        found = {name: self.column(name) for name in _FIELDS} | {"image_id": pa.chunked_array(ids, pa.string())}
        found |= {name: pa.repeat(value, len(self)) for name, value in constant.items()}
        order = pc.sort_indices(found["image_id"]).cast(pa.uint32())
        return TableRows(pa.table({name: found[name] for name in schema.names}).cast(schema), order)


def digest_listing(rows: Iterable[Mapping[str, Any]], images: Iterable[ListedImage]) -> str:
    """Compute the digest of rows, and of sorted paths and stamps: `digest([rows, pairs])`, in little memory."""
    pairs = ListedImages.collect(images).table.select(["path", "stamp"])
    paths = pairs.column("path")
    if pc.any(pc.equal(paths[1:], paths[:-1])).as_py():
        pairs = pairs.sort_by([("path", "ascending"), ("stamp", "ascending")])
    total = hashlib.sha256(b"[[")
    _update(total, iter(rows))
    total.update(b"], [")
    _update(total, ([pair["path"], pair["stamp"]] for pair in TableRows(pairs)))
    total.update(b"]]")
    return total.hexdigest()


def _divide(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    return (column[start : start + _CHUNK] for start in range(0, len(column), _CHUNK))


def _update(total: Any, documents: Iterator[Any]) -> None:
    """Add the elements of a JSON list."""
    separator = ""
    while chunk := list(islice(documents, _CHUNK)):
        text = json.dumps(chunk, sort_keys=True, ensure_ascii=False)
        total.update(f"{separator}{text[1:-1]}".encode())
        separator = ", "


def _slice(table: pa.Table, at: slice) -> pa.Table:
    start, stop, step = at.indices(table.num_rows)
    return table.slice(start, max(stop - start, 0)) if step == 1 else table.take(list(range(start, stop, step)))


def read_listing(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read the stored listing of a partition, or some of its columns.

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
