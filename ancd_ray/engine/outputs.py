"""What a step leaves behind: part files of tables, a marker for every finished shard, and one manifest as the last act.

    <output>/steps/<step>/<product>-<fingerprint>/
        <table>/part-00000.parquet ...     one part a shard, in the order of the shards
        shards/00000.json ...              a finished shard: its files, rows, digests and figures
        manifest.json                      written last; readers follow it and never list a folder

A writer that was killed leaves parts without a marker or a step without a manifest; neither is ever read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Union

import pyarrow as pa

from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS, conform

MANIFEST = "manifest.json"

Rows = Union[Sequence[Mapping[str, Any]], Any]  # noqa: UP007  (or an Arrow table, which has no type stubs)


@dataclass(frozen=True)
class Part:
    """A file of a table."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Work:
    """What one shard came to: rows of tables, and figures of any JSON kind."""

    tables: Mapping[str, Rows]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A committed shard."""

    index: int
    parts: Mapping[str, Part]
    values: Mapping[str, Any]
    seconds: float

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Done:
        """The shard of its marker file."""
        parts = {table: Part(**part) for table, part in document["parts"].items()}
        return cls(document["index"], parts, document["values"], document["seconds"])


@dataclass(frozen=True)
class Result:
    """What a whole step came to: parts of its tables in order, further files by name, and figures."""

    tables: Mapping[str, Sequence[Part]]
    values: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # name → sha256

    @classmethod
    def of_shards(cls, shards: Sequence[Done], values: Mapping[str, Any] | None = None) -> Result:
        """The parts of all shards, by table, in the order of the shards."""
        tables: dict[str, list[Part]] = {}
        for done in sorted(shards, key=lambda done: done.index):
            for table, part in done.parts.items():
                tables.setdefault(table, []).append(part)
        return cls(tables, values or {})


@dataclass(frozen=True)
class Output:
    """A finished step, to be read through its manifest."""

    folder: Folder
    manifest: Mapping[str, Any]

    @classmethod
    def find(cls, folder: Folder) -> Output | None:
        """The output in a folder, or None while it is unfinished."""
        return cls(folder, folder.read_json(MANIFEST)) if folder.exists(MANIFEST) else None

    @property
    def fingerprint(self) -> str:
        """Digest of all that this output depends on."""
        return str(self.manifest["fingerprint"])

    @property
    def values(self) -> Mapping[str, Any]:
        """The figures of the step."""
        values: Mapping[str, Any] = self.manifest["values"]
        return values

    def parts(self, table: str) -> list[Part]:
        """The files of a table."""
        return [Part(**part) for part in self.manifest["tables"].get(table, [])]

    def rows(self, table: str) -> int:
        """The number of rows of a table."""
        return sum(part.rows for part in self.parts(table))

    def table(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """A whole table, or some of its columns; an absent one is empty."""
        read = [self.folder.read_table(part.file, columns) for part in self.parts(table) if part.rows]
        if read:
            return pa.concat_tables(read)
        empty = SCHEMAS[table].empty_table()
        return empty.select(columns) if columns else empty


@dataclass(frozen=True)
class Shard:
    """A piece of a step's work: the parts it reads, and how many images (or regions) that is."""

    index: int
    inputs: Mapping[str, tuple[Folder, str]]
    rows: int

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One of its input tables."""
        folder, file = self.inputs[name]
        return folder.open_arrow(file) if file.endswith(".arrow") else folder.read_table(file, columns)

    def rows_of(self, name: str) -> list[dict[str, Any]]:
        """One of its input tables as rows."""
        rows: list[dict[str, Any]] = self.table(name).to_pylist()
        return rows


def aligned(sources: Mapping[str, Output], count: str | None = None) -> list[Shard]:
    """One shard for every part; the tables of all `sources` (table → step) have their parts in the same order.

    `count` names the table whose rows are counted as progress; the first one if it is not given.
    """
    parts = {table: output.parts(table) for table, output in sources.items()}
    counted = parts[count or next(iter(parts))]
    assert all(len(files) == len(counted) for files in parts.values()), "steps of one product have the same shards"
    return [
        Shard(i, {table: (sources[table].folder, files[i].file) for table, files in parts.items()}, counted[i].rows)
        for i in range(len(counted))
    ]


def write_part(folder: Folder, table: str, index: int, rows: Rows) -> Part:
    """Writes one part of a table, checked against its schema."""
    suffix = "arrow" if table == "views" else "parquet"  # the view bank is read at random: it must map into memory
    file = f"{table}/part-{index:05d}.{suffix}"
    checked = conform(rows, SCHEMAS[table])
    return Part(file, checked.num_rows, folder.write_table(file, checked))


def commit_shard(folder: Folder, index: int, work: Work, seconds: float) -> Done:
    """Writes the parts of a shard, then its marker. An empty quarantine leaves no part."""
    parts = {
        table: write_part(folder, table, index, rows)
        for table, rows in work.tables.items()
        if table != "quarantine" or len(rows)
    }
    done = Done(index, parts, work.values, seconds)
    folder.write_json(_marker(index), asdict(done))
    return done


def finished_shards(folder: Folder) -> dict[int, Done]:
    """The shards that an earlier, interrupted run has committed."""
    markers = [name for name in (folder / "shards").names() if name.endswith(".json")]
    found = [Done.from_json((folder / "shards").read_json(name)) for name in markers]
    return {done.index: done for done in found}


def finished_shard(folder: Folder, index: int) -> Done | None:
    """A shard if it is committed."""
    name = _marker(index)
    return Done.from_json(folder.read_json(name)) if folder.exists(name) else None


def _marker(index: int) -> str:
    return f"shards/{index:05d}.json"
