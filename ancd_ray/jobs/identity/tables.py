"""The tables `classes` and `class_members` of an output folder: read, changed, and resolved.

    <output>/archive/classes          the classes of all products
    <output>/archive/class_members    which regions are theirs: by the last discovery, or by a person

Published rows carry the id of their class: names, and what a class was merged into, are looked up when they are shown.
Only unknown rows are changed, when a class that was found among them is accepted. Jobs and persons change the tables
without the lock of the output, since a night may take hours; each change reads the rows again if another one has come
first.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from ancd_ray.data.location import StoreError
from ancd_ray.data.roles import NORMAL
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import CLASS_MEMBERS, CLASSES, conform
from ancd_ray.jobs.classify.delta import FOLDER, create_table, read_columns, relax, write_rows

Row = dict[str, Any]
MEMBERS = "class_members"
UNLOCKED = ("classes", MEMBERS)  # tables that are written without the lock of the output
_SCHEMAS = {"classes": CLASSES, MEMBERS: CLASS_MEMBERS}
EXEMPLARS = 8  # regions of a class that are kept as examples
_TRIES = 5  # of a change that another one gets ahead of


def read_classes(root: Folder, product: str | None = None) -> dict[str, Row]:
    """Read the classes of a product, or of all, by id.

    Raises
    ------
    StoreError
        The table cannot be read.
    """
    return {row["id"]: row for row in _read(root, "classes", product)}


def read_members(root: Folder, product: str) -> dict[str, Row]:
    """Read the rows of the regions of known classes, by region id.

    Raises
    ------
    StoreError
        The table cannot be read.
    """
    return {row["region_id"]: row for row in _read(root, MEMBERS, product)}


def change_classes(root: Folder, change: Callable[[dict[str, Row]], Iterable[Row]]) -> list[Row]:
    """Change classes.

    Parameters
    ----------
    root
        Output folder.
    change
        Returns the new and the changed rows, given all rows by id; it is called again if another change came first.

    Returns
    -------
    The rows that were written.

    Raises
    ------
    StoreError
        The table cannot be read or written.
    """
    folder, schema = root / FOLDER / "classes", relax(CLASSES)
    for left in reversed(range(_TRIES)):
        known = read_classes(root)
        rows = list(change(known))
        if not rows:
            return []
        table = create_table(folder, schema)
        named = ", ".join("'" + row["id"].replace("'", "''") + "'" for row in rows)
        how: Mapping[str, str] = {"mode": "append"}
        if any(row["id"] in known for row in rows):
            how = {"mode": "overwrite", "predicate": f"id IN ({named})"}
        try:
            write_rows(table, folder, conform(rows, CLASSES).cast(schema), **how)
        except StoreError:
            if not left:
                raise
        else:
            return rows
    raise AssertionError("unreachable")


def write_members(root: Folder, rows: Sequence[Row]) -> None:
    """Write the classes of regions, in place of earlier ones.

    Raises
    ------
    StoreError
        The table cannot be read or written.
    """
    products = {row["product"] for row in rows}
    for product in sorted(products):
        own = {row["region_id"]: row for row in rows if row["product"] == product}
        folder = root / FOLDER / MEMBERS
        table = create_table(folder, relax(CLASS_MEMBERS), partition_by=["product"])
        kept = {**read_members(root, product), **own}
        found = conform(list(kept.values()), CLASS_MEMBERS).cast(relax(CLASS_MEMBERS))
        write_rows(table, folder, found, mode="overwrite", predicate=f"product = '{product}'")


def resolve_id(classes: Mapping[str, Row], class_id: str) -> str:
    """Return the id of the class that a class was merged into, or its own."""
    seen = {class_id}
    while (row := classes.get(class_id)) and row["status"] == "merged" and row["merged_into"] not in seen:
        class_id = row["merged_into"]
        seen.add(class_id)
    return class_id


def find_next_number(product: str, class_ids: Iterable[str]) -> int:
    """Return the first number after those of all known classes of a product."""
    prefix = f"{product}-c"
    numbers = [class_id.removeprefix(prefix) for class_id in class_ids if class_id.startswith(prefix)]
    return max((int(number) for number in numbers if number.isdigit()), default=-1) + 1


class ClassTitle(NamedTuple):
    """Id of a class, that of the class it was merged into, and the name by which it is shown."""

    id: str
    name: str


def find_titles(classes: Mapping[str, Row], ids: Sequence[str]) -> list[ClassTitle]:
    """Return what classes are called: as people have named them, else `normal`, or `class` and their number."""
    found = []
    for own in ids:
        class_id = resolve_id(classes, own)
        row, number = classes.get(class_id), class_id.rpartition("-c")[2].lstrip("0") or "0"
        fallback = NORMAL if class_id.endswith(f"-{NORMAL}") else f"class {number}"
        found.append(ClassTitle(class_id, row["name"] if row and row["name"] else fallback))
    return found


def name_person() -> str:
    """Return the name of who changes something."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user database
        return "unknown"


def now() -> datetime:
    """Return the time of a change."""
    return datetime.now(timezone.utc)


def read_member_columns(root: Folder, columns: Sequence[str], where: ds.Expression | None = None) -> pa.Table:
    """Read some columns of the members of classes, all or those of an expression; without rows if there is no table.

    Raises
    ------
    StoreError
        The table cannot be read.
    """
    return read_columns(root / FOLDER / MEMBERS, relax(CLASS_MEMBERS), columns, where)


def _read(root: Folder, name: str, product: str | None = None) -> list[Row]:
    schema, where = _SCHEMAS[name], None if product is None else ds.field("product") == product
    rows: list[Row] = read_columns(root / FOLDER / name, relax(schema), schema.names, where).to_pylist()
    return rows
