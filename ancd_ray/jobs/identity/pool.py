"""The pool of unknown regions: what many nights have left, until it is enough for new classes.

The pool is what published tables call unknown and no class has taken. When it passes `rediscover.at` regions, groups
that are new classes become candidates, and their regions members of them, with their features. A person accepts a
candidate (`ancd-ray classes accept`), or `rediscover.accept: auto`; from then on the model of the product is extended
by it (`extended.py`), and no known class changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from ancd_ray.config.sections import RediscoverConfig
from ancd_ray.data.roles import make_class_id
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import column_to_matrix
from ancd_ray.discovery.classifiers import load_classifier
from ancd_ray.discovery.new_classes import NewClass, find_new_classes
from ancd_ray.jobs.classify.publish import make_published_schema
from ancd_ray.jobs.identity.assign import assign_class
from ancd_ray.jobs.identity.discovered import make_row, name_space
from ancd_ray.jobs.identity.tables import (
    EXEMPLARS,
    Row,
    change_classes,
    find_next_number,
    now,
    read_classes,
    read_member_columns,
    read_members,
    write_members,
)

if TYPE_CHECKING:
    from ancd_ray.jobs.classify.pinned import PinnedModel
    from ancd_ray.jobs.classify.publish import Published

_BY = "rediscovery"  # who makes candidates


@dataclass(frozen=True)
class Candidate:
    """A new class that was found in the pool."""

    id: str
    product: str
    status: str
    regions: Sequence[str]
    images: int
    separateness: float

    def describe(self) -> str:
        """Describe it in one line."""
        regions = f"{len(self.regions):,} regions in {self.images:,} images"
        if self.status == "active":
            return f"{self.product}: new class {self.id} ({regions}); the next images are classified with it"
        return (
            f"{self.product}: candidate for a new class {self.id} ({regions}); accept it with `ancd-ray classes accept`"
        )


def rediscover(
    published: Published, models: Mapping[str, PinnedModel], config: RediscoverConfig
) -> tuple[dict[str, int], list[Candidate]]:
    """Look for new classes in the pools that are large enough, and write what is found.

    Parameters
    ----------
    published
        The published tables of today.
    models
        The model of each product.
    config
        Size of a pool, and who accepts.

    Returns
    -------
    pools : dict
        Number of regions that are left in the pool of each product.
    candidates : list of Candidate
        The classes that were found.

    Raises
    ------
    StoreError
        A table cannot be read or written.
    """
    members = read_member_columns(published.root, ["region_id", "product", "class_id", "source"])
    candidates = _restore(published.root, models, members, config.accept == "auto")
    unknown = _read_unknown(published)
    class_ids = members.column("class_id").take(
        pc.index_in(unknown.column("region_id"), members.column("region_id").combine_chunks())
    )
    _assign_accepted(published.root, unknown.column("region_id").to_pylist(), class_ids.to_pylist())
    pool = unknown.filter(pc.is_null(class_ids))
    sizes = dict.fromkeys(models, 0)
    for product, model in models.items():
        own = pool.filter(pc.equal(pool.column("product"), product))
        sizes[product] = own.num_rows
        if config.at is not None and own.num_rows >= config.at:
            classifier = load_classifier(model.read)
            # an earlier model may have had other features
            width = classifier.novelty.references_MD.shape[1]
            own = own.filter(pc.equal(pc.list_value_length(own.column("frozen")), width))
            frozen_ND = column_to_matrix(own.column("frozen")) if own.num_rows else np.empty((0, width), np.float32)
            found = find_new_classes(frozen_ND, classifier.novelty)
            if found:
                space = name_space(classifier)
                candidates += _write(published.root, product, own, found, space, config.accept == "auto")
                sizes[product] -= sum(len(each.rows) for each in found)
    return sizes, candidates


def _read_unknown(published: Published) -> pa.Table:
    """Read the unknown regions of all products."""
    columns = ["product", "region_id", "image_id", "frozen"]
    schema = pa.schema([make_published_schema("region_predictions").field(name) for name in columns])
    batches = published.scan("region_predictions", columns, ds.field("is_unknown"))
    rows = pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)
    return rows.filter(pc.is_valid(rows.column("frozen"))).sort_by("region_id")


def _assign_accepted(root: Folder, regions: Sequence[str], class_ids: Sequence[str | None]) -> None:
    """Give unknown regions the accepted class of which they are members: who accepted it was killed."""
    if not any(class_ids):
        return
    classes = read_classes(root)
    of_class: dict[str, list[str]] = {}
    for region, class_id in zip(regions, class_ids, strict=True):
        if class_id and class_id in classes and classes[class_id]["status"] == "active":
            of_class.setdefault(class_id, []).append(region)
    for class_id, own in of_class.items():
        assign_class(root, class_id, own)


def _restore(root: Folder, products: Collection[str], members: pa.Table, accept: bool) -> list[Candidate]:
    """Write the classes of which a job that was killed has written only the members."""
    of_pool = members.filter(pc.equal(members.column("source"), "pool")).select(["product", "class_id"])
    pairs = of_pool.group_by(["product", "class_id"]).aggregate([]).to_pylist()
    if not pairs:
        return []
    known = read_classes(root)
    lost = [(row["product"], row["class_id"]) for row in pairs if row["class_id"] not in known]
    candidates = []
    for product, class_id in sorted(lost):
        if product in products:
            own = [row for row in read_members(root, product).values() if row["class_id"] == class_id]
            regions, frozen = [row["region_id"] for row in own], np.array([row["frozen"] for row in own])
            candidate = Candidate(class_id, product, _name_status(accept), regions, len(regions), 0.0)
            _write_classes(root, [candidate], {class_id: frozen}, own[0]["space"])
            candidates.append(candidate)
    return candidates


def _write(
    root: Folder, product: str, pool: pa.Table, found: Sequence[NewClass], space: str, accept: bool
) -> list[Candidate]:
    """Write new classes: their members first, by which a class is made good if the job is killed in between."""
    known = {row["class_id"] for row in read_members(root, product).values()}
    number = find_next_number(product, {*known, *read_classes(root, product)})
    candidates, frozen, members = [], {}, []
    for i, each in enumerate(found):
        class_id, rows = make_class_id(product, number + i), pool.take(each.rows)
        regions, images = rows.column("region_id").to_pylist(), len(rows.column("image_id").unique())
        candidates.append(Candidate(class_id, product, _name_status(accept), regions, images, each.separateness))
        frozen[class_id] = column_to_matrix(rows.column("frozen"))
        common: Row = {"product": product, "class_id": class_id, "source": "pool", "space": space}
        common |= {"changed_at": now(), "changed_by": _BY}
        values = frozen[class_id].tolist()
        members += [{"region_id": own, "frozen": row, **common} for own, row in zip(regions, values, strict=True)]
    write_members(root, members)
    _write_classes(root, candidates, frozen, space)
    return candidates


def _write_classes(
    root: Folder, candidates: Sequence[Candidate], frozen: Mapping[str, NDArray[Any]], space: str
) -> None:
    """Write the rows of new classes, and give published rows those that need nobody's consent."""
    rows = {
        each.id: {
            **make_row(each.id, each.product, frozen[each.id].mean(axis=0), space),
            **{"status": each.status, "changed_by": _BY, "exemplars": list(each.regions[:EXEMPLARS])},
            **{"images": each.images, "regions": len(each.regions)},
        }
        for each in candidates
    }
    change_classes(root, lambda there: [row for class_id, row in rows.items() if class_id not in there])
    for each in candidates:
        if each.status == "active":
            assign_class(root, each.id, each.regions)


def _name_status(accept: bool) -> str:
    return "active" if accept else "candidate"
