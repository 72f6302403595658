"""What people change about classes: names, merges, regions that belong elsewhere, acceptance, CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ancd_ray.config.errors import AncdError
from ancd_ray.data.roles import NORMAL, make_class_id
from ancd_ray.data.store import Folder
from ancd_ray.jobs.identity.assign import assign_class
from ancd_ray.jobs.identity.tables import (
    EXEMPLARS,
    Row,
    change_classes,
    find_next_number,
    name_person,
    now,
    read_classes,
    read_members,
    resolve_id,
    write_members,
)

COLUMNS = ("id", "product", "name", "status", "merged_into", "images", "regions", "since", "changed_at", "changed_by")
_LONGEST = 100  # characters of a name
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the beginning of a formula


class ClassError(AncdError):
    """A class is unknown, or cannot be changed so; the message is one line."""


def name_class(root: Folder, class_id: str, name: str) -> None:
    """Give a class a name, or take it away with an empty one.

    Raises
    ------
    ClassError
        The class is unknown, or another class of its product has the name.
    StoreError
        The table cannot be read or written.
    """

    def change(there: Mapping[str, Row]) -> Iterator[Row]:
        row = _find(there, class_id, root)
        yield _touch(row, name=_check_name(there, row, name))

    change_classes(root, change)


def merge_classes(root: Folder, class_ids: Sequence[str], into: str) -> None:
    """Merge classes into another one of their product; their rows are shown as its own from now on.

    Raises
    ------
    ClassError
        A class is unknown, is the normal one, or belongs to another product.
    StoreError
        The table cannot be read or written.
    """

    def change(there: Mapping[str, Row]) -> Iterator[Row]:
        target = _find(there, resolve_id(there, into), root)
        for class_id in dict.fromkeys(class_ids):
            row = _find(there, class_id, root)
            if row["product"] != target["product"]:
                raise ClassError(f"{class_id} is a class of {row['product']}, {into} one of {target['product']}")
            if class_id == target["id"]:
                raise ClassError(f"{class_id} cannot be merged into itself")
            if class_id.endswith(f"-{NORMAL}"):
                raise ClassError(f"{class_id} is the normal class, which is not merged; merge others into it")
            yield _touch(row, status="merged", merged_into=target["id"])

    change_classes(root, change)


def set_status(root: Folder, class_id: str, status: str) -> None:
    """Set the status of a class: `active` (accepts a candidate, or undoes a merge), or `ignored`.

    Published rows of unknown regions get the class that is accepted.

    Raises
    ------
    ClassError
        The class is unknown.
    StoreError
        The table cannot be read or written.
    """
    (row,) = change_classes(root, lambda there: [_touch(_find(there, class_id, root), status=status, merged_into=None)])
    if status == "active":
        members = read_members(root, row["product"])
        assign_class(root, class_id, [own for own, each in members.items() if each["class_id"] == class_id])


def split_off(root: Folder, class_id: str, regions: Sequence[str], name: str | None = None) -> str:
    """Make a new class of regions of another one; returns its id.

    The regions are labels for the next discovery. Rows that are published keep their class until then.

    Raises
    ------
    ClassError
        The class is unknown, or there are no regions.
    StoreError
        A table cannot be read or written.
    """
    if not regions:
        raise ClassError("there are no regions to split off; give a CSV file with a column region_id")

    def change(there: Mapping[str, Row]) -> Iterator[Row]:
        row = _find(there, class_id, root)
        number = find_next_number(row["product"], there)
        new = {
            **row,
            "id": make_class_id(row["product"], number),
            "prototype": None,
            "exemplars": list(regions[:EXEMPLARS]),
        }
        new |= {"name": None, "status": "active", "merged_into": None, "since": now()}
        new = _touch(new, regions=len(set(regions)), images=0)
        yield {**new, "name": _check_name(there, new, name) if name else None}

    (row,) = change_classes(root, change)
    _correct(root, row["product"], {region: str(row["id"]) for region in regions})
    return str(row["id"])


def read_regions(text: str, where: str) -> list[str]:
    """Read the ids of regions from CSV with a column `region_id`.

    Raises
    ------
    ClassError
        There is no such column.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    if rows and "region_id" not in rows[0]:
        raise ClassError(f"{where}: has no column region_id; there are {', '.join(rows[0])}")
    return [row["region_id"] for row in rows]


def find_class(root: Folder, class_id: str) -> Row:
    """Return the row of a class.

    Raises
    ------
    ClassError
        It is unknown.
    StoreError
        The table cannot be read.
    """
    return _find(read_classes(root), class_id, root)


def export_classes(root: Folder, product: str | None = None) -> str:
    """Return the classes as CSV; texts that a spreadsheet would run as a formula are quoted."""
    with io.StringIO(newline="") as written:
        writer = csv.DictWriter(written, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for _, row in sorted(read_classes(root, product).items()):
            writer.writerow({key: _neutralize(row[key]) for key in COLUMNS})
        return written.getvalue()


def import_csv(root: Folder, text: str, where: str) -> str:
    """Import names and states of classes, or classes of regions, from CSV; returns what was done, in words.

    Parameters
    ----------
    root
        Output folder.
    text
        With columns `id` and `name` (and `status`, `merged_into`), as `export` writes it, or with columns `region_id`
        and `class_id`, which are labels for the next discovery.
    where
        Name of the file, for messages.

    Raises
    ------
    ClassError
        A column is missing, a class is unknown, or a value cannot be used; the message names the line.
    StoreError
        A table cannot be read or written.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = set(rows[0]) if rows else set()
    if {"region_id", "class_id"} <= columns:
        return _import_regions(root, rows, where)
    if not {"id", "name"} <= columns:
        raise ClassError(f"{where}: needs the columns id and name, or region_id and class_id, and at least one row")

    def change(there: Mapping[str, Row]) -> Iterable[Row]:
        seen = dict(there)
        for line, given in enumerate(rows, 2):
            try:
                new = _apply(seen, given, root)
            except ClassError as error:
                raise ClassError(f"{where}, line {line}: {error}") from error
            if new != seen[new["id"]]:
                seen[new["id"]] = _touch(new)
        return [row for class_id, row in seen.items() if row is not there[class_id]]

    return f"{len(change_classes(root, change)):,} of {len(rows):,} classes changed"


def _apply(there: Mapping[str, Row], given: Mapping[str, str], root: Folder) -> Row:
    row = _find(there, given["id"], root)
    new = {**row, "name": _check_name(there, row, _restore(given["name"] or ""))}
    if status := given.get("status"):
        if status not in ("active", "candidate", "merged", "ignored"):
            raise ClassError(f"status {status!r} is none of active, candidate, merged, ignored")
        into = given.get("merged_into") or None
        if (status == "merged") != (into is not None):
            raise ClassError("status merged needs merged_into, and other states have none")
        new |= {"status": status, "merged_into": _find(there, into, root)["id"] if into else None}
    return new


def _import_regions(root: Folder, rows: Sequence[Mapping[str, str]], where: str) -> str:
    classes = read_classes(root)
    of_product: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows, 2):
        if not row["region_id"]:
            raise ClassError(f"{where}, line {line}: region_id is empty")
        try:
            found = _find(classes, row["class_id"], root)
        except ClassError as error:
            raise ClassError(f"{where}, line {line}: {error}") from error
        of_product.setdefault(found["product"], {})[row["region_id"]] = found["id"]
    for product, corrected in of_product.items():
        _correct(root, product, corrected)
    return f"{len(rows):,} regions have a class given by a person; the next discovery takes them as labels"


def _correct(root: Folder, product: str, corrected: Mapping[str, str]) -> None:
    common = {"product": product, "source": "person", "changed_at": now(), "changed_by": name_person()}
    write_members(root, [{"region_id": region, "class_id": own, **common} for region, own in corrected.items()])


def _find(there: Mapping[str, Row], class_id: str, root: Folder) -> Row:
    if class_id not in there:
        some = ", ".join(sorted(there)[:5])
        raise ClassError(f"{root}: has no class {class_id!r}{f'; there are {some}, …' if some else ' and no others'}")
    return there[class_id]


def _touch(row: Row, **changes: Any) -> Row:
    return {**row, **changes, "changed_at": now(), "changed_by": name_person()}


def _check_name(there: Mapping[str, Row], row: Row, name: str) -> str | None:
    name = " ".join(name.split())
    if not name:
        return None
    if len(name) > _LONGEST or not name.isprintable():
        raise ClassError(f"a name has at most {_LONGEST} printable characters")
    for other in there.values():
        is_same = other["product"] == row["product"] and other["id"] != row["id"]
        if is_same and other["status"] != "merged" and other["name"] == name:
            raise ClassError(f"{other['id']} is named {name!r} already; merge them, or take another name")
    return name


def _neutralize(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _restore(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text
