"""Folders on any filesystem, with atomic writes.

A `Folder` is a URI (local path, s3://, gs://, hdfs://, ...) that is passed between processes as text.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ancd_ray.data.location import Location, remember

DRAFTS = ".drafts"  # in an output folder: files that are being written
_HASHED_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class FileStat:
    """Size of a file in bytes, and the time of its last change in seconds since the epoch; inf if nobody knows."""

    size: int
    time: float


class Folder:
    """A folder that steps write to and read from."""

    def __init__(self, location: str | Location) -> None:
        self.location = location if isinstance(location, Location) else Location.parse(location)
        remember([self.location])  # its text, which others pass on, has no credentials

    def __reduce__(self) -> tuple[type[Folder], tuple[Location]]:
        return Folder, (self.location,)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.location / name)

    def __str__(self) -> str:
        return self.uri

    @property
    def uri(self) -> str:
        """Its path or URI, without credentials and options."""
        return str(self.location)

    @property
    def parent(self) -> Folder:
        """The folder that contains it."""
        return Folder(self.location.parent)

    @cached_property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        return self.location.open()

    @property
    def is_local(self) -> bool:
        """Whether programs that require paths (sqlite, memory maps, locks) work in this folder."""
        return isinstance(self._place[0], pafs.LocalFileSystem)

    @property
    def path(self) -> Path:
        """The local path; asserts that the folder is local."""
        assert self.is_local, self.uri
        return Path(self._place[1])

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The filesystem with this folder as its root."""
        return pafs.SubTreeFileSystem(self._place[1], self._place[0])

    def file(self, name: str) -> str:
        """Return the path of a file in this folder's filesystem."""
        return f"{self._place[1].rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        info: pafs.FileInfo = self._place[0].get_file_info(self.file(name))
        return bool(info.type != pafs.FileType.NotFound)

    def names(self) -> list[str]:
        """List the names of all entries of the folder, sorted; empty if the folder does not exist."""
        selector = pafs.FileSelector(self._place[1], allow_not_found=True)
        try:
            return sorted(info.base_name for info in self._place[0].get_file_info(selector))
        except FileNotFoundError:  # made or deleted between Arrow's look at it and its listing
            return []

    def times(self) -> dict[str, int]:
        """Return the times of change of the folder's entries by name, in ns by the clock of the filesystem."""
        selector = pafs.FileSelector(self._place[1], allow_not_found=True)
        return {info.base_name: info.mtime_ns for info in self._place[0].get_file_info(selector)}

    def read(self, name: str) -> bytes:
        """Read a file."""
        with self._place[0].open_input_stream(self.file(name)) as stream:
            return bytes(stream.read())

    def files(self) -> list[str]:
        """List the paths of all files below the folder, relative to it, sorted; without hidden ones."""
        return sorted(name for name in self.stats() if not name.rpartition("/")[2].startswith("."))

    def stats(self) -> dict[str, FileStat]:
        """Look at all files below the folder, hidden ones included, by path relative to it; no file is opened."""
        selector = pafs.FileSelector(self._place[1], allow_not_found=True, recursive=True)
        found = [info for info in self._place[0].get_file_info(selector) if info.type == pafs.FileType.File]
        start = len(self.file(""))
        return {
            info.path[start:]: FileStat(info.size, math.inf if info.mtime_ns is None else info.mtime_ns / 1e9)
            for info in found
        }

    def sha256(self, name: str) -> str:
        """Compute the sha256 of a file; a process reads a file again only if its size or time of change is another."""
        info = self._place[0].get_file_info(self.file(name))
        return _hash_file(self.uri, name, info.size, info.mtime_ns)

    def write(self, name: str, data: bytes, durable: bool = True) -> None:
        """Write a file atomically, also with concurrent writers; unless `durable`, a power cut may undo it."""
        with self._atomically(name, durable) as path, self._place[0].open_output_stream(path) as stream:
            stream.write(data)

    def read_json(self, name: str) -> Any:
        """Read a JSON file."""
        return json.loads(self.read(name))

    def write_json(self, name: str, document: Any, durable: bool = True) -> None:
        """Write a JSON file; see `write`."""
        data = (json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
        self.write(name, data, durable)

    def write_table(self, name: str, table: pa.Table) -> str:
        """Write a Parquet file atomically; returns its sha256."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue()
        with self._atomically(name) as path, self._place[0].open_output_stream(path) as stream:
            stream.write(data)
        return hashlib.sha256(data).hexdigest()

    def write_arrow(self, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> tuple[int, str]:
        """Write an Arrow IPC file, to be memory-mapped, atomically and table by table; returns rows and sha256."""
        rows = 0
        with self._atomically(name) as path, self._place[0].open_output_stream(path) as stream:
            hashed = _HashedStream(stream)
            with pa.ipc.new_file(pa.PythonFile(hashed, "w"), schema) as writer:
                for table in tables:
                    writer.write_table(table)
                    rows += table.num_rows
        return rows, hashed.total.hexdigest()

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet file."""
        return pq.read_table(self.file(name), filesystem=self._place[0], columns=columns, partitioning=None)

    def count_rows(self, name: str) -> int:
        """Return the number of rows of a Parquet file, from its footer."""
        return int(pq.read_metadata(self.file(name), filesystem=self._place[0]).num_rows)

    def open_arrow(self, name: str) -> pa.Table:
        """Open an Arrow IPC file: memory-mapped on a local disk, otherwise read into memory."""
        if self.is_local:
            return pa.ipc.open_file(pa.memory_map(self.file(name))).read_all()
        with self._place[0].open_input_file(self.file(name)) as source:
            return pa.ipc.open_file(source).read_all()

    def delete(self, name: str) -> None:
        """Delete a file."""
        self._place[0].delete_file(self.file(name))

    def discard(self, name: str) -> None:
        """Delete a file, if it exists."""
        with suppress(FileNotFoundError):
            self.delete(name)

    def remove(self) -> None:
        """Delete the folder with its content, if it exists."""
        if self._place[0].get_file_info(self._place[1]).type != pafs.FileType.NotFound:
            self._place[0].delete_dir(self._place[1])

    def copy_to(self, name: str, target: Folder, target_name: str) -> None:
        """Copy a file to another folder atomically, without loading it into memory."""
        with target._atomically(target_name) as path:
            pafs.copy_files(
                self.file(name), path, source_filesystem=self._place[0], destination_filesystem=target._place[0]
            )

    @contextmanager
    def _atomically(self, name: str, durable: bool = True) -> Iterator[str]:
        path = self.file(name)
        if not self.is_local:  # object stores show an object only after its upload is complete
            yield path
            return
        target = Path(path)
        _make_folder(target.parent)
        draft = _find_drafts(target.parent) / f".{uuid.uuid4().hex}"  # hidden, for folders outside of an output
        try:
            yield str(draft)
            if durable:
                _flush(draft)  # before the rename: a power cut may keep the name and lose the content
            draft.replace(target)
            if durable:
                _flush(target.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


class _HashedStream:
    """An output stream that computes the sha256 of what it writes."""

    closed = False

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self.total = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Write data."""
        self.total.update(data)
        self._stream.write(data)

    def flush(self) -> None:
        """Do nothing: the stream is flushed when it is closed."""

    def close(self) -> None:
        """Do nothing: the stream belongs to its opener."""


@lru_cache(maxsize=100_000)
def _hash_file(uri: str, name: str, size: int, time: int) -> str:  # noqa: ARG001
    folder, total = Folder(uri), hashlib.sha256()
    with folder._place[0].open_input_stream(folder.file(name)) as stream:
        while block := stream.read(_HASHED_BLOCK):
            total.update(block)
    return total.hexdigest()


def _find_drafts(folder: Path) -> Path:
    """Return the folder for the draft of a file: `.drafts` of the output it belongs to, if any, else its own folder.

    Readers that list the folder of a table would take a draft that a killed writer left there for a part.
    """
    device = folder.stat().st_dev  # a file cannot be renamed to another filesystem
    for top in (folder, *folder.parents):
        drafts = top / DRAFTS
        if drafts.is_dir() and drafts.stat().st_dev == device:
            return drafts
    return folder


def _make_folder(path: Path) -> None:
    """Make a folder with its parents, so that they survive a power cut."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Wait until the disk has the content of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Provide a file as a local path: the file itself, or a temporary download."""
    system, path = Location.parse(uri).open()
    if isinstance(system, pafs.LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / Path(path).name
        pafs.copy_files(path, str(local), source_filesystem=system, destination_filesystem=pafs.LocalFileSystem())
        yield local


def digest(document: Any) -> str:
    """Compute a stable sha256 of a JSON-like document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
