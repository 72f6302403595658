"""Classified partitions as they are read: without the rows of images that are superseded or deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.engine.outputs import Output, Part
from ancd_ray.jobs.classify.plan import ProductPlan
from ancd_ray.jobs.partitions import Partition

_DISCOVERED = ("image_predictions", "region_predictions", "regions")


Parts = Mapping[str, Sequence[tuple[Folder, Part]]]  # by table, with their folders


@dataclass(frozen=True)
class Classified:
    """A classified partition; rows of images that are superseded or deleted are left out when it is read."""

    product: ProductPlan
    partition: Partition
    parts: Parts

    @classmethod
    def of_output(cls, product: ProductPlan, partition: Partition, output: Output) -> Classified:
        """Make it of the output of `classify_images`."""
        return cls(product, partition, {table: _locate(output, table) for table in output.manifest["tables"]})

    @classmethod
    def of_discovery(cls, product: ProductPlan, partition: Partition, artifacts: ArtifactSet) -> Classified:
        """Make it of the artifacts of a discovery; the partition is its sample."""
        found = {role: _locate(artifacts.table(role).output, role) for role in _DISCOVERED}
        outputs = artifacts.outputs
        return cls(
            product, partition, {**found, "quarantine": [each for o in outputs for each in _locate(o, "quarantine")]}
        )

    def count_rows(self, table: str) -> int:
        """Count the rows of a table, those that are left out when it is read included."""
        return sum(part.rows for _, part in self.parts.get(table, ()))

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Read a table, or some of its columns."""
        empty = SCHEMAS[table].empty_table()
        return pa.concat_tables([empty.select(columns) if columns else empty, *self.read_parts(table, columns)])

    def read_parts(self, table: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Read a table part by part, or some of its columns."""
        gone = pa.array(sorted(self.partition.gone), pa.string())
        needed = [*columns, "image_id"] if columns and len(gone) and "image_id" not in columns else columns
        for folder, part in self.parts.get(table, ()):
            if table == "quarantine":  # images of other roles are no images to classify
                rows = part.read(folder)
                rows = rows.filter(pc.equal(rows.column("role"), "query"))
            else:
                rows = part.read(folder, needed)
            if len(gone):
                rows = rows.filter(pc.invert(pc.is_in(rows.column("image_id"), value_set=gone)))
            yield rows.select(columns) if columns else rows

    def copy(self, table: str, folder: Folder) -> None:
        """Copy a table to a folder: its files as they are, or the rows that are left."""
        prefix = f"{self.product.name}-{self.partition.number:05d}"
        if self.partition.gone:
            folder.write_table(f"{prefix}.parquet", self.read(table))
            return
        for source, part in self.parts.get(table, ()):
            source.copy_to(part.file, folder, f"{prefix}-{part.file.rpartition('part-')[2]}")


def _locate(output: Output, table: str) -> list[tuple[Folder, Part]]:
    return [(output.folder, part) for part in output.parts(table)]


def join(classified: Sequence[Classified], table: str, columns: list[str] | None = None) -> pa.Table:
    """Read a table of several partitions, or some of its columns."""
    empty = SCHEMAS[table].empty_table()
    return pa.concat_tables(
        [empty.select(columns) if columns else empty, *(each.read(table, columns) for each in classified)]
    )


def compare_labels(predicted: pa.Table) -> dict[str, float | None]:
    """Compute NMI, ARI and F1 over the images that have a label."""
    from ancd_ray.method.metrics import cluster_scores

    known = predicted.filter(pc.is_valid(predicted.column("label")))
    if not known.num_rows:
        return {"nmi": None, "ari": None, "f1": None}
    scores = cluster_scores(
        known.column("label").to_numpy(zero_copy_only=False).astype(str), known.column("cls").to_numpy()
    )
    return {"nmi": scores.nmi, "ari": scores.ari, "f1": scores.f1}
