"""Output of a step: part files of tables, a marker for each finished shard, and a manifest.

    <output>/steps/<step>/<product>-<fingerprint>/
        <table>/part-00000.parquet ...     one part per shard, in the order of the shards
        shards/00000.json ...              a finished shard: its files, rows, digests and figures
        manifest.json                      written last; readers follow it and never list a folder

A killed writer leaves parts without a marker, or a step without a manifest; these are never read. A marker or manifest
that cannot be read (empty, truncated) counts as missing, and so does one whose files are not as it records them: before
results of an earlier run are used, existence, sha256 and rows of their files are compared with the record (see
`integrity.py`). Later reads compare the rows. The manifest also has the sizes of the files, for a look without reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar, Union

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS, conform

MANIFEST = "manifest.json"
LISTS = ("listing", "images")  # tables with one row for every image
MAPPED = ("views", "clean_views")  # tables with random access, stored as Arrow files, which can be memory-mapped

T = TypeVar("T")
Rows = Union[Sequence[Mapping[str, Any]], Any]  # noqa: UP007  (or an Arrow table, which has no type stubs)


@dataclass(frozen=True)
class Part:
    """A file of a table."""

    file: str
    rows: int
    sha256: str

    def read(self, folder: Folder, columns: list[str] | None = None) -> pa.Table:
        """Read the file, or some of its columns; Arrow files are memory-mapped.

        Raises
        ------
        StoreError
            The file cannot be read, or has another number of rows than recorded.
        """
        try:
            if self.file.endswith(".arrow"):
                table = folder.open_arrow(self.file)
                table = table.select(columns) if columns else table
            else:
                table = folder.read_table(self.file, columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"{folder}/{self.file}: {str(error).splitlines()[0]}; submit the job again") from error
        if table.num_rows != self.rows:
            raise StoreError(
                f"{folder}/{self.file}: {table.num_rows} rows, {self.rows} were written; submit the job again"
            )
        return table

    def find_damage(self, folder: Folder) -> str | None:
        """Return what is wrong with the file, in one line; None if it is as it was written."""
        if damage := find_damage(folder, self.file, self.sha256):
            return damage
        try:
            self.read(folder, [])
        except StoreError:
            return f"{self.file} has other rows than recorded"
        return None


@dataclass(frozen=True)
class ShardResult:
    """Result of a worker for one shard: rows of tables, and JSON-like figures.

    Of tables with random access, the rows may be an iterator over batches, which are computed while they are written.
    """

    tables: Mapping[str, Rows | Iterator[Rows]]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CommittedShard:
    """A committed shard."""

    index: int
    parts: Mapping[str, Part]
    values: Mapping[str, Any]
    seconds: float

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CommittedShard:
        """Make a shard from the content of its marker file."""
        parts = {table: Part(**part) for table, part in document["parts"].items()}
        return cls(document["index"], parts, document["values"], document["seconds"])


@dataclass(frozen=True)
class Result:
    """Result of a step: parts of its tables in order, other files by name, and figures."""

    tables: Mapping[str, Sequence[Part]]
    values: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # name → sha256

    @classmethod
    def of_shards(cls, shards: Sequence[CommittedShard], values: Mapping[str, Any] | None = None) -> Result:
        """Collect the parts of all shards by table, in the order of the shards."""
        tables: dict[str, list[Part]] = {}
        for done in sorted(shards, key=lambda done: done.index):
            for table, part in done.parts.items():
                tables.setdefault(table, []).append(part)
        return cls(tables, values or {})


@dataclass(frozen=True)
class Output:
    """Output of a finished step, read through its manifest."""

    folder: Folder
    manifest: Mapping[str, Any]

    @classmethod
    def find(cls, folder: Folder) -> Output | None:
        """Return the output in a folder; None if the step is not finished."""
        found = read_or_none(folder, MANIFEST, lambda manifest: cls(folder, dict(manifest)))
        return found if found and found.manifest.keys() >= {"fingerprint", "tables", "values"} else None

    @property
    def fingerprint(self) -> str:
        """Digest of everything that the output depends on."""
        return str(self.manifest["fingerprint"])

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of its files by name; empty in manifests of earlier versions."""
        sizes: Mapping[str, int] = self.manifest.get("sizes", {})
        return sizes

    @property
    def values(self) -> Mapping[str, Any]:
        """The figures of the step."""
        values: Mapping[str, Any] = self.manifest["values"]
        return values

    def parts(self, table: str) -> list[Part]:
        """Return the files of a table."""
        return [Part(**part) for part in self.manifest["tables"].get(table, [])]

    def rows(self, table: str) -> int:
        """Return the number of rows of a table."""
        return sum(part.rows for part in self.parts(table))

    def table(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Read a table, or some of its columns; an absent table is empty."""
        read = [part.read(self.folder, columns) for part in self.parts(table) if part.rows]
        if read:
            return pa.concat_tables(read)
        empty = SCHEMAS[table].empty_table()
        return empty.select(columns) if columns else empty


class PartedTable(Protocol):
    """Interface of tables in parts, such as `artifacts.Table`."""

    @property
    def folder(self) -> Folder:
        """Folder of its files."""

    @property
    def parts(self) -> list[Part]:
        """Its files in order."""


@dataclass(frozen=True)
class Shard:
    """A unit of work of a step: the parts it reads, and their number of images or regions.

    `only` has the ids of the images whose rows are read; None for all of them.
    """

    index: int
    inputs: Mapping[str, tuple[Folder, Part]]
    rows: int
    only: frozenset[str] | None = None

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read an input table."""
        folder, part = self.inputs[name]
        if self.only is None:
            return part.read(folder, columns)
        table = part.read(folder)
        table = table.filter(pc.is_in(_find_image_ids(table), value_set=pa.array(sorted(self.only), pa.string())))
        return table.select(columns) if columns else table

    def rows_of(self, name: str) -> list[dict[str, Any]]:
        """Read an input table as rows."""
        rows: list[dict[str, Any]] = self.table(name).to_pylist()
        return rows

    def image_ids(self) -> list[str]:
        """Return the ids of its images in order, by the table that lists them, if there is one."""
        lists = next(name for name in (*LISTS, *self.inputs) if name in self.inputs)
        return list(dict.fromkeys(_find_image_ids(self.table(lists)).to_pylist()))


def _find_image_ids(table: pa.Table) -> Any:
    """Return the image of each row; ids of regions start with that of their image."""
    if "image_id" in table.column_names:
        return table.column("image_id")
    return pc.replace_substring_regex(table.column("region_id"), "-[0-9]+$", "")


def align_shards(tables: Mapping[str, PartedTable], count: str | None = None) -> list[Shard]:
    """Make one shard per part of tables of one product, which must have corresponding parts.

    Parameters
    ----------
    tables
        The tables by role.
    count
        The table whose rows are counted as progress; the first one if it is None.
    """
    parts = {role: table.parts for role, table in tables.items()}
    counted = parts[count or next(iter(parts))]
    assert all(len(files) == len(counted) for files in parts.values()), "steps of one product have the same shards"
    return [
        Shard(i, {role: (tables[role].folder, files[i]) for role, files in parts.items()}, counted[i].rows)
        for i in range(len(counted))
    ]


def write_part(folder: Folder, table: str, index: int, rows: Rows | Iterator[Rows]) -> Part:
    """Check rows against the schema of a table and write them as one part of it, batch by batch if they come so."""
    schema = SCHEMAS[table]
    if table in MAPPED:
        batches = rows if isinstance(rows, Iterator) else [rows]
        file = f"{table}/part-{index:05d}.arrow"
        return Part(file, *folder.write_arrow(file, schema, (conform(batch, schema) for batch in batches)))
    file = f"{table}/part-{index:05d}.parquet"
    checked = conform(rows, schema)
    return Part(file, checked.num_rows, folder.write_table(file, checked))


def commit_shard(folder: Folder, index: int, work: ShardResult, begun: float) -> CommittedShard:
    """Write the parts of a shard, then its marker with the seconds since `begun`; an empty quarantine has no part."""
    parts = {
        table: write_part(folder, table, index, rows)
        for table, rows in work.tables.items()
        if table != "quarantine" or len(rows)  # type: ignore[arg-type]
    }
    done = CommittedShard(index, parts, work.values, round(time.perf_counter() - begun, 3))
    folder.write_json(_marker(index), asdict(done))
    return done


def discard_shard(folder: Folder, index: int) -> None:
    """Delete the marker of a shard, if there is one, so that it is done again."""
    folder.discard(_marker(index))


def read_finished_shard(folder: Folder, index: int) -> CommittedShard | None:
    """Return a shard if it is committed, else None."""
    return read_or_none(folder, _marker(index), CommittedShard.from_json)


def find_damage(folder: Folder, file: str, sha256: str) -> str | None:
    """Return what is wrong with a file of recorded content, in one line; None if it is as it was written."""
    if not folder.exists(file):
        return f"{file} is missing"
    return None if folder.sha256(file) == sha256 else f"{file} is not as it was written"


def read_or_none(folder: Folder, name: str, make: Callable[[Any], T]) -> T | None:
    """Make an object from a JSON file; None if the file does not exist, or is not what it should be."""
    try:
        return make(folder.read_json(name))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _marker(index: int) -> str:
    return f"shards/{index:05d}.json"
