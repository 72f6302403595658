"""What people say about single regions, as discoveries take it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.dataset as ds

from ancd_ray.data.store import Folder
from ancd_ray.jobs.classify.delta import FOLDER
from ancd_ray.jobs.identity.tables import MEMBERS, read_classes, read_member_columns, read_members, resolve_id

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
    products = read_member_columns(root, ["product"], ds.field("source") == "person").column("product").unique()
    return {product: _read_product(root, product) for product in products.to_pylist()}


def _read_product(root: Folder, product: str) -> Corrections:
    classes, members = read_classes(root, product), read_members(root, product)
    given = {
        region: resolve_id(classes, row["class_id"]) for region, row in members.items() if row["source"] == "person"
    }
    known = {region: row["class_id"] for region, row in members.items() if row["source"] != "person"}
    return Corrections(tuple(sorted(given.items())), tuple(sorted(known.items())))
