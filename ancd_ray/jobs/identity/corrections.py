"""What people say about single regions, as discoveries take it."""

from __future__ import annotations

from dataclasses import dataclass

from ancd_ray.data.store import Folder
from ancd_ray.jobs.classify.delta import FOLDER
from ancd_ray.jobs.identity.tables import MEMBERS, read_classes, read_member_columns, resolve_id

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Corrections:
    """Ids of regions of a product and of their classes: `given` by people, and `known` of others before."""

    given: Pairs = ()
    known: Pairs = ()


NO_CORRECTIONS = Corrections()


def read_corrections(root: Folder) -> dict[str, Corrections]:
    """Read the corrections of the products that have any; a class that was merged is the one that it was merged into.

    Raises
    ------
    StoreError
        A table cannot be read.
    """
    if MEMBERS not in (root / FOLDER).names():
        return {}
    rows = read_member_columns(root, ["product", "region_id", "class_id", "source"]).to_pylist()
    found: dict[str, Corrections] = {}
    corrected = {row["product"] for row in rows if row["source"] == "person"}
    classes = read_classes(root) if corrected else {}
    for product in corrected:
        own = [row for row in rows if row["product"] == product]
        given = {row["region_id"]: resolve_id(classes, row["class_id"]) for row in own if row["source"] == "person"}
        known = {row["region_id"]: row["class_id"] for row in own if row["source"] != "person"}
        found[product] = Corrections(tuple(sorted(given.items())), tuple(sorted(known.items())))
    return found
