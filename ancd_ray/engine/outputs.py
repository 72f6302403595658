"""Output of a step: part files of tables, a marker for each finished shard, and a manifest.

    <output>/steps/<step>/<product>-<fingerprint>/
        <table>/part-00000.parquet ...     one part per shard, in the order of the shards
        shards/00000.json ...              a finished shard: its files, rows, digests and figures
        manifest.json                      written last; readers follow it and never list a folder

A killed writer leaves parts without a marker, or a step without a manifest; these are never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, Union

import pyarrow as pa

from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS, conform

MANIFEST = "manifest.json"
MAPPED = ("views", "clean_views")  # tables with random access, stored as Arrow files, which can be memory-mapped

Rows = Union[Sequence[Mapping[str, Any]], Any]  # noqa: UP007  (or an Arrow table, which has no type stubs)


@dataclass(frozen=True)
class Part:
    """A file of a table."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class ShardResult:
    """Result of a worker for one shard: rows of tables, and JSON-like figures."""

    tables: Mapping[str, Rows]
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
        return cls(folder, folder.read_json(MANIFEST)) if folder.exists(MANIFEST) else None

    @property
    def fingerprint(self) -> str:
        """Digest of everything that the output depends on."""
        return str(self.manifest["fingerprint"])

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
        read = [self.folder.read_table(part.file, columns) for part in self.parts(table) if part.rows]
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
    """A unit of work of a step: the parts it reads, and their number of images or regions."""

    index: int
    inputs: Mapping[str, tuple[Folder, str]]
    rows: int

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read an input table."""
        folder, file = self.inputs[name]
        return folder.open_arrow(file) if file.endswith(".arrow") else folder.read_table(file, columns)

    def rows_of(self, name: str) -> list[dict[str, Any]]:
        """Read an input table as rows."""
        rows: list[dict[str, Any]] = self.table(name).to_pylist()
        return rows


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
        Shard(i, {role: (tables[role].folder, files[i].file) for role, files in parts.items()}, counted[i].rows)
        for i in range(len(counted))
    ]


def write_part(folder: Folder, table: str, index: int, rows: Rows) -> Part:
    """Check rows against the schema of a table and write them as one part of it."""
    suffix = "arrow" if table in MAPPED else "parquet"
    file = f"{table}/part-{index:05d}.{suffix}"
    checked = conform(rows, SCHEMAS[table])
    return Part(file, checked.num_rows, folder.write_table(file, checked))


def commit_shard(folder: Folder, index: int, work: ShardResult, seconds: float) -> CommittedShard:
    """Write the parts of a shard, then its marker; an empty quarantine has no part."""
    parts = {
        table: write_part(folder, table, index, rows)
        for table, rows in work.tables.items()
        if table != "quarantine" or len(rows)
    }
    done = CommittedShard(index, parts, work.values, seconds)
    folder.write_json(_marker(index), asdict(done))
    return done


def read_finished_shards(folder: Folder) -> dict[int, CommittedShard]:
    """Return the committed shards of a folder by index."""
    markers = [name for name in (folder / "shards").names() if name.endswith(".json")]
    found = [CommittedShard.from_json((folder / "shards").read_json(name)) for name in markers]
    return {done.index: done for done in found}


def read_finished_shard(folder: Folder, index: int) -> CommittedShard | None:
    """Return a shard if it is committed, else None."""
    name = _marker(index)
    return CommittedShard.from_json(folder.read_json(name)) if folder.exists(name) else None


def _marker(index: int) -> str:
    return f"shards/{index:05d}.json"
