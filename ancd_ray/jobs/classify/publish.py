"""Published tables: what is known of every image of an archive, as Delta tables that any program reads.

    <output>/archive/image_predictions, region_predictions, quarantine          and `runs`, see runs.py

A row has its partition, the digest of the model, and a `state`, the digest of partition, model and the images that are
gone from it. Publishing compares the states that a table has with those of today, and replaces what differs in one
transaction: readers see the archive before or after it, and a run that was killed is made good by the next one, since
nothing is published twice. Images are the last table: an image that is there has its regions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from ancd_ray.data.store import Folder, digest
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.context import StageError
from ancd_ray.jobs.classify.classified import Classified, join
from ancd_ray.jobs.classify.delta import FOLDER, create_table, relax, write_rows

TABLES = ("region_predictions", "quarantine", "image_predictions")
_ADDED = ("partition", "model", "state")


def publish(classified: Sequence[Classified], root: Folder) -> dict[str, int]:
    """Publish the partitions of an archive; returns the number of rows written by table.

    Raises
    ------
    StoreError
        A table cannot be read or written.
    """
    return {table: _publish_table(table, classified, root / FOLDER / table) for table in TABLES}


def check_quarantined(classified: Sequence[Classified], allowed: float) -> None:
    """Count the images of each product that cannot be used, in all of its partitions: a night may be a single image.

    Raises
    ------
    StageError
        They are a larger share of the archive than the job allows.
    """
    for product in {each.product.name: each.product for each in classified}.values():
        own = [each for each in classified if each.product is product]
        listed = sum(each.partition.left for each in own)
        lost = join(own, "quarantine", ["uri", "reason"]).to_pylist()
        if len(lost) > allowed * listed:
            raise StageError(
                f"{len(lost)} of {listed} images of product {product.name} cannot be used, more than "
                f"resources.max_quarantined={allowed:g} allows; the first: {lost[0]['uri']}: {lost[0]['reason']}"
            )


def make_published_schema(table: str) -> pa.Schema:
    """Return the schema of a published table."""
    return pa.schema([*relax(SCHEMAS[table]), *(pa.field(name, pa.string()) for name in _ADDED)])


def _publish_table(table: str, classified: Sequence[Classified], folder: Folder) -> int:
    today = {_make_state(each): each for each in classified}
    schema = make_published_schema(table)
    target = create_table(folder, schema, partition_by=["product"])
    written = 0
    for product, states in _read_states(target, classified).items():
        new = {state: each for state, each in today.items() if each.product.name == product and state not in states}
        gone = states - today.keys()
        rows = sum(each.count_rows(table) for each in new.values())
        if not rows and not gone:
            continue
        named = ", ".join(f"'{state}'" for state in sorted(gone | new.keys()))
        replaced = {"mode": "overwrite", "predicate": f"product = '{product}' AND state IN ({named})"}
        how: dict[str, Any] = replaced if gone else {"mode": "append"}
        write_rows(target, folder, pa.RecordBatchReader.from_batches(schema, _read_batches(table, new)), **how)
        written += rows
    return written


def _make_state(each: Classified) -> str:
    gone = sorted(each.partition.gone)
    return digest([each.product.name, each.partition.number, each.partition.id, each.product.model.digest, gone])[:16]


def _read_states(target: object, classified: Iterable[Classified]) -> dict[str, set[str]]:
    """Read the states of each product of the job that a table has."""
    states: dict[str, set[str]] = {each.product.name: set() for each in classified}
    table = target.to_pyarrow_dataset().to_table(columns=["product", "state"])  # type: ignore[attr-defined]
    for row in table.group_by(["product", "state"]).aggregate([]).to_pylist():
        if row["product"] in states:
            states[row["product"]].add(row["state"])
    return states


def _read_batches(table: str, partitions: dict[str, Classified]) -> Iterator[pa.RecordBatch]:
    """Read the rows of partitions part by part."""
    schema = make_published_schema(table)
    for state, each in partitions.items():
        for rows in each.read_parts(table):
            added = [each.partition.id, each.product.model.digest, state]
            columns = [*rows.columns, *(pa.array([value] * rows.num_rows, pa.string()) for value in added)]
            yield from pa.Table.from_arrays(columns, names=schema.names).cast(schema).to_batches()
