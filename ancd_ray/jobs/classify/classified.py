"""Classified partitions as they are read: without the rows of images that are superseded or deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs.classify.plan import ProductPlan
from ancd_ray.jobs.partitions import Partition

Rows = Callable[[str, "list[str] | None"], Iterator[pa.Table]]  # reads a table, or some of its columns, part by part


@dataclass(frozen=True)
class Classified:
    """A classified partition; rows of images that are superseded or deleted are left out when it is read."""

    product: ProductPlan
    partition: Partition
    rows: Rows

    @property
    def state(self) -> str:
        """Its state in published tables."""
        return self.product.make_state(self.partition)

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Read a table, or some of its columns."""
        empty = SCHEMAS[table].empty_table()
        return pa.concat_tables([empty.select(columns) if columns else empty, *self.read_parts(table, columns)])

    def read_parts(self, table: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Read a table part by part, or some of its columns."""
        gone = pa.array(sorted(self.partition.gone), pa.string())
        filtered = (["image_id"] if len(gone) else []) + (["role"] if table == "quarantine" else [])
        needed = list(dict.fromkeys([*columns, *filtered])) if columns else None
        for part in self.rows(table, needed):
            kept = part
            if table == "quarantine":  # images of other roles are not to be classified
                kept = kept.filter(pc.equal(kept.column("role"), "query"))
            if len(gone):
                kept = kept.filter(pc.invert(pc.is_in(kept.column("image_id"), value_set=gone)))
            yield kept.select(columns) if columns else kept

    def copy(self, table: str, folder: Folder) -> None:
        """Write a table to a folder, a file a part."""
        for i, rows in enumerate(self.read_parts(table)):
            folder.write_table(f"{self.product.name}-{self.partition.number:05d}-{i:05d}.parquet", rows)


def read_output(output: Output) -> Rows:
    """Return a source of the rows of a step."""

    def read(table: str, columns: list[str] | None) -> Iterator[pa.Table]:
        return (part.read(output.folder, columns) for part in output.parts(table))

    return read


def read_artifacts(artifacts: ArtifactSet) -> Rows:
    """Return a source of the rows of a discovery."""

    def read(table: str, columns: list[str] | None) -> Iterator[pa.Table]:
        outputs = artifacts.outputs if table == "quarantine" else [artifacts.table(table).output]
        return (rows for output in outputs for rows in read_output(output)(table, columns))

    return read


def join(classified: Sequence[Classified], table: str, columns: list[str] | None = None) -> pa.Table:
    """Read a table of several partitions, or some of its columns."""
    empty = SCHEMAS[table].empty_table()
    return pa.concat_tables(
        [empty.select(columns) if columns else empty, *(each.read(table, columns) for each in classified)]
    )


def compare_labels(predicted: pa.Table) -> dict[str, float | None]:
    """Compute NMI, ARI and F1 over the images that have a label, from the columns `label` and `class_id`."""
    from ancd_ray.method.metrics import cluster_scores

    known = predicted.filter(pc.is_valid(predicted.column("label")))
    if not known.num_rows:
        return {"nmi": None, "ari": None, "f1": None}
    codes = known.column("class_id").combine_chunks().dictionary_encode().indices.to_numpy()
    scores = cluster_scores(known.column("label").to_numpy(zero_copy_only=False).astype(str), codes)
    return {"nmi": scores.nmi, "ari": scores.ari, "f1": scores.f1}


def count_classes(predicted: pa.Table) -> Counter[str]:
    """Count the rows of each class, from the columns `class_id` and `is_unknown`, without unknown ones."""
    known = predicted.filter(pc.invert(predicted.column("is_unknown")))
    return Counter({each["values"]: each["counts"] for each in pc.value_counts(known.column("class_id")).to_pylist()})
