"""The pool of unknown regions: what many nights have left, until it is enough for new classes.

The pool is what published tables call unknown and no class has taken. When it passes `rediscover.at` regions, groups
that are new classes become candidates, and their regions members of them, with their features. A person accepts a
candidate (`ancd-ray classes accept`), or `rediscover.accept: auto`; from then on the model of the product is extended
by it (`extended.py`), and no known class changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from ancd_ray.jobs.classify.publish import assign_class
from ancd_ray.jobs.identity.discovered import find_next_number, make_row, name_space
from ancd_ray.jobs.identity.tables import Row, change_classes, now, read_classes, read_members, write_members

if TYPE_CHECKING:
    from ancd_ray.jobs.classify.pinned import PinnedModel
    from ancd_ray.jobs.classify.publish import Published

_BY = "rediscovery"  # who makes candidates
_EXEMPLARS = 8


@dataclass(frozen=True)
class Pool:
    """The unknown regions of a product that belong to no class yet.

    Parameters
    ----------
    product
        Name of the product.
    region_ids, image_ids
        Ids of the regions and of their images.
    frozen_ND
        Their frozen features.
    """

    product: str
    region_ids: Sequence[str]
    image_ids: Sequence[str]
    frozen_ND: NDArray[Any]

    def __len__(self) -> int:
        return len(self.region_ids)


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


def read_pool(published: Published, product: str, width: int) -> Pool:
    """Read the pool of a product; `width` is that of the frozen features of its model, and others are left out.

    Raises
    ------
    StoreError
        A table cannot be read.
    """
    where = (ds.field("product") == product) & ds.field("is_unknown")
    batches = list(published.scan("region_predictions", ["region_id", "image_id", "frozen"], where))
    members = read_members(published.root, product)
    rows = pa.Table.from_batches(batches) if batches else pa.table({"region_id": [], "image_id": [], "frozen": []})
    if rows.num_rows:
        is_member = pc.is_in(rows.column("region_id"), value_set=pa.array(sorted(members), pa.string()))
        has_width = pc.equal(pc.list_value_length(rows.column("frozen")), width)
        rows = rows.filter(pc.and_(pc.invert(is_member), pc.fill_null(has_width, fill_value=False)))
    rows = rows.sort_by("region_id")
    frozen_ND = column_to_matrix(rows.column("frozen")) if rows.num_rows else np.empty((0, width), np.float32)
    return Pool(product, rows.column("region_id").to_pylist(), rows.column("image_id").to_pylist(), frozen_ND)


def rediscover(
    published: Published, models: Mapping[str, PinnedModel], config: RediscoverConfig
) -> tuple[dict[str, Pool], list[Candidate]]:
    """Look for new classes in the pools that are large enough, and write what is found.

    Returns
    -------
    pools : dict
        What is left in the pool of each product.
    candidates : list of Candidate
        The classes that were found.

    Raises
    ------
    StoreError
        A table cannot be read or written.
    """
    pools, candidates = {}, []
    for product, model in models.items():
        candidates += _restore(published.root, product, config.accept == "auto")
        classifier = load_classifier(model.read)
        pool = read_pool(published, product, classifier.novelty.references_MD.shape[1])
        found: list[NewClass] = []
        if config.at is not None and len(pool) >= config.at:
            found = find_new_classes(pool.frozen_ND, classifier.novelty)
        if found:
            candidates += _write(published.root, pool, found, name_space(classifier), config.accept == "auto")
            taken = {int(row) for each in found for row in each.rows}
            left = [row for row in range(len(pool)) if row not in taken]
            pool = replace(
                pool,
                region_ids=[pool.region_ids[row] for row in left],
                image_ids=[pool.image_ids[row] for row in left],
                frozen_ND=pool.frozen_ND[left],
            )
        pools[product] = pool
    return pools, candidates


def _restore(root: Folder, product: str, accept: bool) -> list[Candidate]:
    """Write the classes of which a job that was killed has written only the members."""
    known = read_classes(root, product)
    lost: dict[str, list[Row]] = {}
    for row in read_members(root, product).values():
        if row["source"] == "pool" and row["class_id"] not in known:
            lost.setdefault(row["class_id"], []).append(row)
    candidates = []
    for class_id, members in sorted(lost.items()):
        regions = [row["region_id"] for row in members]
        candidates.append(Candidate(class_id, product, _name_status(accept), regions, len(regions), 0.0))
    frozen = {class_id: np.array([row["frozen"] for row in members]) for class_id, members in lost.items()}
    spaces = {class_id: members[0]["space"] for class_id, members in lost.items()}
    _write_classes(root, candidates, frozen, spaces)
    return candidates


def _write(root: Folder, pool: Pool, found: Sequence[NewClass], space: str, accept: bool) -> list[Candidate]:
    """Write new classes: their members first, by which a class is made good if the job is killed in between."""
    known = {row["class_id"] for row in read_members(root, pool.product).values()}
    number = find_next_number(pool.product, {*known, *read_classes(root, pool.product)})
    candidates, frozen, members = [], {}, []
    for i, each in enumerate(found):
        class_id = make_class_id(pool.product, number + i)
        regions = [pool.region_ids[row] for row in each.rows]
        images = len({pool.image_ids[row] for row in each.rows})
        candidates.append(Candidate(class_id, pool.product, _name_status(accept), regions, images, each.separateness))
        frozen[class_id] = pool.frozen_ND[each.rows]
        common: Row = {"product": pool.product, "class_id": class_id, "source": "pool", "space": space}
        common |= {"changed_at": now(), "changed_by": _BY}
        values = frozen[class_id].tolist()
        members += [{"region_id": own, "frozen": row, **common} for own, row in zip(regions, values, strict=True)]
    write_members(root, members)
    _write_classes(root, candidates, frozen, dict.fromkeys(frozen, space))
    return candidates


def _write_classes(
    root: Folder, candidates: Sequence[Candidate], frozen: Mapping[str, NDArray[Any]], spaces: Mapping[str, str]
) -> None:
    """Write the rows of new classes, and give published rows those that need nobody's consent."""
    rows = {
        each.id: {
            **make_row(each.id, each.product, frozen[each.id].mean(axis=0), spaces[each.id]),
            **{"status": each.status, "changed_by": _BY, "exemplars": list(each.regions[:_EXEMPLARS])},
            **{"images": each.images, "regions": len(each.regions)},
        }
        for each in candidates
    }
    if rows:
        change_classes(root, lambda there: [row for class_id, row in rows.items() if class_id not in there])
    for each in candidates:
        if each.status == "active":
            assign_class(root, each.id, each.regions)


def _name_status(accept: bool) -> str:
    return "active" if accept else "candidate"
