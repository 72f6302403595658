"""Artifacts that stages exchange: tables, files and figures, each with a role.

A role says what an artifact is (`images`, `maps`, `regions`, `classifier`, ...), not which stage made it. Stages
declare the roles that they read and make; flows connect them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.outputs import Output, Part


@dataclass(frozen=True)
class Artifact:
    """An output of a finished step, with its role."""

    kind: ClassVar[str]
    output: Output
    role: str

    @property
    def values(self) -> Mapping[str, Any]:
        """Figures of the step that made it."""
        return self.output.values

    @property
    def folder(self) -> Folder:
        """Folder of the step that made it."""
        return self.output.folder


@dataclass(frozen=True)
class Table(Artifact):
    """A table in parts, one per shard."""

    kind: ClassVar[str] = "table"

    @property
    def parts(self) -> list[Part]:
        """Its files, in the order of the shards."""
        return self.output.parts(self.role)

    @property
    def num_rows(self) -> int:
        """Number of its rows."""
        return self.output.rows(self.role)

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Read the whole table, or some of its columns."""
        return self.output.table(self.role, columns)

    def read_rows(self, rows_M: NDArray[np.int64], columns: list[str] | None = None) -> pa.Table:
        """Read some rows, in increasing order, part by part: other rows do not stay in memory."""
        found, start = [SCHEMAS[self.role].empty_table().select(columns or SCHEMAS[self.role].names)], 0
        for part in self.parts:
            first, last = np.searchsorted(rows_M, [start, start + part.rows])
            if first < last:
                found.append(self.read_part(part, columns).take(rows_M[first:last] - start))
            start += part.rows
        return pa.concat_tables(found)

    def read_part(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """Read one of its parts; Arrow files are memory-mapped."""
        return part.read(self.folder, columns)


@dataclass(frozen=True)
class Files(Artifact):
    """Files by name."""

    kind: ClassVar[str] = "files"

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        return list(self.output.manifest["files"])

    def read(self, name: str) -> bytes:
        """Read a file."""
        return self.folder.read(name)


@dataclass(frozen=True)
class Figures(Artifact):
    """Figures without tables or files; see `values`."""

    kind: ClassVar[str] = "figures"


KINDS: Mapping[str, type[Artifact]] = {kind.kind: kind for kind in (Table, Files, Figures)}
A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class ArtifactSet:
    """The artifacts of a product by role."""

    artifacts: Mapping[str, Artifact]

    def __contains__(self, role: str) -> bool:
        return role in self.artifacts

    def table(self, role: str) -> Table:
        """Return a table."""
        return self._get(role, Table)

    def files(self, role: str) -> Files:
        """Return files."""
        return self._get(role, Files)

    def figures(self, role: str) -> Mapping[str, Any]:
        """Return the figures of the step that made an artifact; empty if it does not exist."""
        return self.artifacts[role].values if role in self.artifacts else {}

    @property
    def outputs(self) -> list[Output]:
        """The outputs of all steps, in their order."""
        return list({artifact.folder.uri: artifact.output for artifact in self.artifacts.values()}.values())

    def quarantine_rows(self) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of `quarantine` of all steps, in the order of the steps."""
        for output in self.outputs:
            yield from output.table("quarantine").to_pylist()

    def _get(self, role: str, kind: type[A]) -> A:
        found = self.artifacts[role]
        assert isinstance(found, kind), f"{role} is {found.kind}, not {kind.kind}"
        return found
