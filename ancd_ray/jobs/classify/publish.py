"""Published tables: what is known of every image of an archive, as Delta tables that any program reads.

    <output>/archive/image_predictions, region_predictions, quarantine          and `runs`, see runs.py

A row has its partition, the digest of the model, and a `state`, the digest of partition, model and the images that are
gone from it; a prediction also has the id of its class (of the nearest one, if it is unknown), and an image the day it
is from. The tables are the record of what is done: a partition whose state they have is neither classified nor looked
at again. Publishing replaces what differs from today in one transaction a table: readers see the archive before or
after it, and a run that was killed is made good by the next one, since nothing is published twice. Images are the last
table: an image that is there has its regions.

    <output>/partitions/<product>/published.json

has the number of rows of each state and table. By it, and by the sizes of the files, what another hand has changed in
the tables is noticed and published anew; without it the tables are taken as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ancd_ray.config.errors import first_line
from ancd_ray.data.location import StoreError, describe_outage
from ancd_ray.data.store import Folder, digest
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.outputs import read_or_none
from ancd_ray.jobs.classify.delta import FOLDER, create_table, is_outage, open_table, relax, write_rows
from ancd_ray.jobs.partitions import FOLDER as PARTITIONS
from ancd_ray.jobs.partitions import Partition

if TYPE_CHECKING:
    from ancd_ray.jobs.classify.classified import Classified, Rows

TABLES = ("region_predictions", "quarantine", "image_predictions")
_ADDED = ("partition", "model", "state")
_CLASS_ID = pa.field("class_id", pa.string())  # of predictions; of unknown ones that of the nearest class
_DAY = pa.field("day", pa.date32())  # of images: when they were captured, or else the date of the file
_EXPECTED = "published.json"
_LISTING = ("image_predictions", "quarantine")  # of both tables together each image has a row

Counts = Mapping["tuple[str, str]", int]  # rows by product and state


@dataclass(frozen=True)
class Published:
    """The published tables of an output folder, as they are now.

    Parameters
    ----------
    root
        The output folder.
    counts
        Number of rows by table, product and state.
    damaged_tables
        Products of which files are missing or have other sizes, by table.
    """

    root: Folder
    counts: Mapping[str, Counts]
    damaged_tables: Mapping[str, Collection[str]]
    _opened: dict[str, Any] = field(default_factory=dict)
    _expected: dict[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Folder) -> Published:
        """Read what the tables have from their logs; data files are read only where these do not say it.

        Raises
        ------
        StoreError
            A table cannot be read.
        """
        found = {table: _count_states(root / FOLDER / table) for table in TABLES}
        counts = {table: counted for table, (counted, _) in found.items()}
        return cls(root, counts, {table: damaged for table, (_, damaged) in found.items()})

    @property
    def damaged(self) -> set[str]:
        """Products of which a table has missing or damaged files."""
        return {product for products in self.damaged_tables.values() for product in products}

    def has(self, product: str, state: str, images: int) -> bool:
        """Whether the tables have all images of a partition in this state, as they were published."""
        counts = {table: self.counts[table].get((product, state), 0) for table in TABLES}
        expected = self.read_expected(product).get(state, counts)
        return product not in self.damaged and counts == expected and sum(counts[t] for t in _LISTING) == images

    def knows(self, product: str, state: str) -> bool:
        """Whether a partition was published in a state, whatever has happened to its rows since."""
        return (product, state) in self.counts["image_predictions"] or state in self.read_expected(product)

    def read_expected(self, product: str) -> Mapping[str, Mapping[str, int]]:
        """Read how many rows of each state and table were published; empty if nobody knows."""
        if product not in self._expected:
            parse = dict[str, dict[str, int]]
            self._expected[product] = read_or_none(self.root / PARTITIONS / product, _EXPECTED, parse) or {}
        return self._expected[product]

    def describe_edits(self, product: str) -> Iterator[str]:
        """Describe in lines what another hand has changed in the rows of a product."""
        for table in TABLES:
            place = f"{self.root}/{FOLDER}/{table}"
            if product in self.damaged_tables[table]:
                yield f"{place}: files of product {product} are missing or damaged; published anew"
                continue
            expected = self.read_expected(product)
            changed = [
                state for state, rows in expected.items() if self.counts[table].get((product, state), 0) != rows[table]
            ]
            if changed:
                yield f"{place}: {len(changed)} partitions of product {product} have other rows; published anew"

    def count(self, table: str, products: Collection[str]) -> dict[str, int]:
        """Count the rows of a table by product."""
        found = dict.fromkeys(products, 0)
        for (product, _), rows in self.counts[table].items():
            if product in found:
                found[product] += rows
        return found

    def find_images(self, product: str, partition: str, model: str) -> set[str]:
        """Return the images that the tables have of a partition with a model, in any state."""
        own = _select(product, partition, model)
        tables = [self.scan(table, ["image_id"], own) for table in _LISTING]
        return {image for table in tables for batch in table for image in batch.column("image_id").to_pylist()}

    def scan(
        self, table: str, columns: Sequence[str] | None = None, where: ds.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read rows of a table, or some of its columns, batch by batch; columns that an earlier version lacks are null.

        Raises
        ------
        StoreError
            A file of the table cannot be read.
        """
        dataset = self.open(table)
        if dataset is None:
            return
        there = [name for name in columns if name in dataset.schema.names] if columns else None
        try:
            for batch in dataset.to_batches(columns=there, filter=where):
                yield _fill(batch, table, columns) if columns else batch
        except (OSError, pa.ArrowInvalid) as error:
            if is_outage(error, self.root):
                raise StoreError(f"{self.root / FOLDER / table}: {describe_outage(error)}") from error
            raise StoreError(
                f"{self.root / FOLDER / table}: a file of this table cannot be read ({first_line(error)}); delete this "
                "folder and submit the job again, which publishes the table anew"
            ) from error

    def open(self, table: str) -> ds.Dataset | None:
        """Open a table as a dataset; None if there is none."""
        if table not in self._opened:
            folder = self.root / FOLDER / table
            found = open_table(folder)
            # with Arrow's filesystem: Delta's cannot be read from while Delta writes
            self._opened[table] = found.to_pyarrow_dataset(filesystem=folder.filesystem) if found else None
        return self._opened[table]

    def read_rows(self, table: str, columns: Sequence[str], product: str) -> pa.Table:
        """Read some columns of the rows of a product.

        Raises
        ------
        StoreError
            A file of the table cannot be read.
        """
        schema = pa.schema([make_published_schema(table).field(name) for name in columns])
        batches = self.scan(table, columns, ds.field("product") == product)
        return pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)


def _fill(batch: pa.RecordBatch, table: str, columns: Sequence[str]) -> pa.RecordBatch:
    """Return a batch with all of the columns; those that it lacks are null."""
    schema = make_published_schema(table)
    found = {name: batch.column(name) for name in batch.schema.names}
    found |= {name: pa.nulls(batch.num_rows, schema.field(name).type) for name in columns if name not in found}
    return pa.RecordBatch.from_arrays([found[name] for name in columns], names=list(columns))


def make_state(product: str, partition: Partition, model: str) -> str:
    """Make the state of a partition whose images are classified with a model."""
    return digest([product, partition.number, partition.id, model, sorted(partition.gone)])[:16]


def read_again(published: Published, product: str, partition: Partition, model: str) -> Rows:
    """Return a source of the rows that the tables have of a partition, for one that has lost images since."""
    own = _select(product, partition.id, model)
    for table in TABLES:
        published.open(table)  # now: Delta opens no table while it writes

    def read(table: str, columns: list[str] | None) -> Iterator[pa.Table]:
        # the class of a row may be another one than that of the model, see `jobs/identity/assign.py`
        has_id = columns is None and _CLASS_ID in make_published_schema(table)
        names = columns or [*SCHEMAS[table].names, *([_CLASS_ID.name] if has_id else [])]
        if table in TABLES:
            for batch in published.scan(table, names, own):
                yield pa.Table.from_batches([batch])

    return read


def publish(
    classified: Sequence[Classified], today: Mapping[str, Collection[str]], published: Published
) -> dict[str, int]:
    """Publish partitions, and take away what is not of today; returns the number of rows written by table.

    Parameters
    ----------
    classified
        Partitions that the tables do not have in today's state.
    today
        Today's states of all partitions by product.
    published
        What the tables have.

    Raises
    ------
    StoreError
        A table cannot be read or written.
    """
    written = {table: _publish_table(table, classified, today, published) for table in TABLES}
    for product, states in today.items():
        known = published.read_expected(product)
        new = {each.state for each in classified if each.product.name == product}
        rows = {state: {table: written[table][product, state] for table in TABLES} for state in new}
        expected = {state: counts for state, counts in {**known, **rows}.items() if state in states}
        if expected != known:
            (published.root / PARTITIONS / product).write_json(_EXPECTED, expected)
    return {table: counts.total() for table, counts in written.items()}


def _publish_table(
    table: str, classified: Sequence[Classified], today: Mapping[str, Collection[str]], published: Published
) -> Counter[tuple[str, str]]:
    folder, schema = published.root / FOLDER / table, make_published_schema(table)
    target = create_table(folder, schema, partition_by=["product"])
    there: dict[str, set[str]] = {}
    for product, state in published.counts[table]:
        there.setdefault(product, set()).add(state)
    written: Counter[tuple[str, str]] = Counter()
    appended: dict[str, Classified] = {}  # of all products together

    def read(partitions: Mapping[str, Classified]) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, _read_batches(table, partitions, written))

    for product, states in today.items():
        new = {each.state: each for each in classified if each.product.name == product}
        replaced = {state for state in there.get(product, ()) if state not in states or state in new}
        if product in published.damaged_tables[table]:
            write_rows(target, folder, read(new), mode="overwrite", predicate=f"product = '{product}'")
        elif replaced:
            named = ", ".join(f"'{state}'" for state in sorted(replaced | new.keys()))  # Delta checks new rows by it
            predicate = f"product = '{product}' AND state IN ({named})"
            write_rows(target, folder, read(new), mode="overwrite", predicate=predicate)
        else:
            appended |= new
    if any(part.num_rows for each in appended.values() for part in each.read_parts(table, ["image_id"])):
        write_rows(target, folder, read(appended), mode="append")
    return written


def make_published_schema(table: str) -> pa.Schema:
    """Return the schema of a published table."""
    own = {"image_predictions": [_CLASS_ID, _DAY], "region_predictions": [_CLASS_ID]}.get(table, [])
    return pa.schema([*relax(SCHEMAS[table]), *own, *(pa.field(name, pa.string()) for name in _ADDED)])


def _select(product: str, partition: str, model: str) -> ds.Expression:
    values = {"product": product, "partition": partition, "model": model}
    conditions = [ds.field(name) == value for name, value in values.items()]
    return conditions[0] & conditions[1] & conditions[2]


def _count_states(folder: Folder) -> tuple[Counts, set[str]]:
    """Count the rows of a table by product and state, and find the products whose files are damaged."""
    table = open_table(folder)
    if table is None:
        return {}, set()
    found = pa.table(table.get_add_actions(flatten=True)).to_pydict()
    present = folder.stats()
    names = ("path", "size_bytes", "partition.product", "num_records", "min.state", "max.state")
    counts: Counter[tuple[str, str]] = Counter()
    damaged, mixed = set(), set()  # products
    columns = [found.get(name, [None] * len(found["path"])) for name in names]  # other writers may leave no statistics
    for path, size, product, rows, low, high in zip(*columns, strict=True):
        file = present.get(unquote(path))
        if file is None or file.size != size:
            damaged.add(product)
        elif rows and low is not None and low == high:
            counts[product, low] += rows
        elif rows != 0:
            mixed.add(product)
    if known := mixed - damaged:  # compacted files have rows of several states
        dataset = table.to_pyarrow_dataset(filesystem=folder.filesystem)
        states = dataset.to_table(columns=["product", "state"], filter=ds.field("product").isin(sorted(known)))
        counts = Counter({key: n for key, n in counts.items() if key[0] not in known})
        for row in states.group_by(["product", "state"]).aggregate([([], "count_all")]).to_pylist():
            counts[row["product"], row["state"]] = row["count_all"]
    return counts, damaged


def _read_batches(
    table: str, partitions: Mapping[str, Classified], counted: Counter[tuple[str, str]]
) -> Iterator[pa.RecordBatch]:
    """Read the rows of partitions part by part, and count them."""
    schema = make_published_schema(table)
    for state, each in partitions.items():
        model = each.product.model_of(each.partition)
        days = each.partition.read_days() if _DAY.name in schema.names else None
        for rows in each.read_parts(table):
            counted[each.product.name, state] += rows.num_rows
            constant = {"partition": each.partition.id, "model": model.digest, "state": state}
            found = {name: rows.column(name) for name in rows.column_names}
            found |= {name: pa.repeat(value, rows.num_rows) for name, value in constant.items()}
            if _CLASS_ID.name in schema.names and _CLASS_ID.name not in found:
                found[_CLASS_ID.name] = pa.array(model.class_ids, pa.string()).take(rows.column("cls"))
            if days is not None:
                at = pc.index_in(rows.column("image_id"), days.column("image_id").combine_chunks())
                found[_DAY.name] = days.column(_DAY.name).take(at)
            columns = [found[name] for name in schema.names]
            yield from pa.Table.from_arrays(columns, names=schema.names).cast(schema).to_batches()
