"""Published tables: what is known of every image of an archive, as Delta tables that any program reads.

    <output>/archive/image_predictions, region_predictions, quarantine          and `runs`, see runs.py

A row has its partition, the digest of the model, and a `state`, the digest of partition, model and the images that are
gone from it. Publishing compares the states that a table has, and the number of their rows, with those of today, and
replaces what differs in one transaction: readers see the archive before or after it, a run that was killed is made good
by the next one, since nothing is published twice, and so are rows or files that another hand has deleted. Images are
the last table: an image that is there has its regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.errors import first_line
from ancd_ray.data.location import StoreError, describe_outage
from ancd_ray.data.store import Folder, digest
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.context import StageError
from ancd_ray.jobs.classify.classified import Classified, join
from ancd_ray.jobs.classify.delta import FOLDER, create_table, is_outage, relax, write_rows

if TYPE_CHECKING:
    from deltalake import DeltaTable

TABLES = ("region_predictions", "quarantine", "image_predictions")
_ADDED = ("partition", "model", "state")


def publish(
    classified: Sequence[Classified], root: Folder, warn: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """Publish the partitions of an archive; returns the number of rows written by table.

    `warn` is called with a line for what another hand has changed in the tables, and is therefore published anew.

    Raises
    ------
    StoreError
        A table cannot be read or written.
    """
    return {table: _publish_table(table, classified, root / FOLDER / table, warn) for table in TABLES}


def check_quarantined(classified: Sequence[Classified], allowed: float) -> None:
    """Count the images of each product that cannot be used, in all of its partitions: a night may be a single image.

    Raises
    ------
    StageError
        They are a larger share of the archive than the job allows.
    """
    for product in {each.product.name: each.product for each in classified}.values():
        own = [each for each in classified if each.product is product]
        listed = sum(each.partition.images - len(each.partition.gone) for each in own)
        lost = join(own, "quarantine", ["uri", "reason"]).to_pylist()
        if len(lost) > allowed * listed:
            raise StageError(
                f"{len(lost)} of {listed} images of product {product.name} cannot be used, more than "
                f"resources.max_quarantined={allowed:g} allows; the first: {lost[0]['uri']}: {lost[0]['reason']}"
            )


def make_published_schema(table: str) -> pa.Schema:
    """Return the schema of a published table."""
    return pa.schema([*relax(SCHEMAS[table]), *(pa.field(name, pa.string()) for name in _ADDED)])


def _publish_table(table: str, classified: Sequence[Classified], folder: Folder, warn: Callable[[str], None]) -> int:
    products: dict[str, dict[str, Classified]] = {}
    for each in classified:
        products.setdefault(each.product.name, {})[_make_state(each)] = each
    schema = make_published_schema(table)
    target = create_table(folder, schema, partition_by=["product"])
    written = 0
    for product, today in products.items():
        there = _count_published(target, folder, product, warn)
        rows = {state: _count_rows(table, each) for state, each in today.items()}
        new = {state: today[state] for state in today if rows[state] != (there or {}).get(state, 0)}
        replaced = (there or {}).keys() - today.keys() | (there or {}).keys() & new.keys()
        if changed := replaced & today.keys():
            warn(f"{folder}: {len(changed)} partitions of product {product} had other rows; they are published anew")
        how: dict[str, Any] = {"mode": "append"}
        if there is None:
            how = {"mode": "overwrite", "predicate": f"product = '{product}'"}
        elif replaced:
            named = ", ".join(f"'{state}'" for state in sorted(replaced | new.keys()))  # Delta checks new rows by it
            how = {"mode": "overwrite", "predicate": f"product = '{product}' AND state IN ({named})"}
        elif not new:
            continue
        write_rows(target, folder, pa.RecordBatchReader.from_batches(schema, _read_batches(table, new)), **how)
        written += sum(rows[state] for state in new)
    return written


def _make_state(each: Classified) -> str:
    gone = sorted(each.partition.gone)
    return digest([each.product.name, each.partition.number, each.partition.id, each.product.model.digest, gone])[:16]


def _count_published(
    target: DeltaTable, folder: Folder, product: str, warn: Callable[[str], None]
) -> dict[str, int] | None:
    """Count the rows of each state of a product that a table has; None if its files are missing or damaged."""
    rows = target.to_pyarrow_dataset()
    try:
        states = rows.to_table(columns=["state"], filter=pc.field("product") == product)
    except (OSError, ValueError) as error:
        if is_outage(error, folder):
            raise StoreError(f"{folder}: {describe_outage(error)}") from error
        warn(f"{folder}: files of product {product} are missing or damaged ({first_line(error)}); published anew")
        return None
    counted = states.group_by("state").aggregate([([], "count_all")]).to_pylist()
    return {row["state"]: row["count_all"] for row in counted}


def _count_rows(table: str, each: Classified) -> int:
    """Count the rows of a partition that are left."""
    if each.partition.gone:
        return sum(part.num_rows for part in each.read_parts(table, ["image_id"]))
    return each.output.rows(table)


def _read_batches(table: str, partitions: dict[str, Classified]) -> Iterator[pa.RecordBatch]:
    """Read the rows of partitions part by part."""
    schema = make_published_schema(table)
    for state, each in partitions.items():
        for rows in each.read_parts(table):
            added = [each.partition.id, each.product.model.digest, state]
            columns = [*rows.columns, *(pa.array([value] * rows.num_rows, pa.string()) for value in added)]
            yield from pa.Table.from_arrays(columns, names=schema.names).cast(schema).to_batches()
