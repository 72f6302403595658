"""Where the regions of the classes of one model are in the classes of another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from ancd_ray.jobs.identity.tables import find_titles, read_classes
from ancd_ray.jobs.results import locate_root
from ancd_ray.models.format import read_document

_PREDICTIONS = "region_predictions"


@dataclass(frozen=True)
class ClassFlow:
    """Regions that two models have sorted, by their classes in both.

    Parameters
    ----------
    product
        Name of the product.
    models
        What both models are called.
    counts
        Number of regions by the id of the class in the first and in the second model, the largest first.
    names
        Names of the classes, by id, in either model: ids of different output folders mean different things.
    alone
        Numbers of regions that only one of the models has.
    """

    product: str
    models: tuple[str, str]
    counts: Sequence[tuple[str, str, int]]
    names: tuple[Mapping[str, str], Mapping[str, str]]
    alone: tuple[int, int]

    def describe(self) -> list[tuple[str, str, str]]:
        """Return the rows of a table: names of the classes in both models, and the number of regions."""
        return [(self.names[0][one], self.names[1][other], f"{count:,}") for one, other, count in self.counts]


def read_flow(runs: tuple[Folder, Folder], product: str, models: tuple[str, str]) -> ClassFlow:
    """Read the classes of the regions that two discoveries of a product have both found.

    Parameters
    ----------
    runs
        Their run folders.
    product
        Name of the product.
    models
        What both models are called.

    Raises
    ------
    StoreError, ModelError
        A table or model is missing, or cannot be read.
    """
    first, second = (_read_classes(run, product) for run in runs)
    shared = first.keys() & second.keys()
    counts = Counter((first[region], second[region]) for region in shared)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = (_read_names(runs[0], first), _read_names(runs[1], second))
    alone = (len(first) - len(shared), len(second) - len(shared))
    return ClassFlow(product, models, [(*pair, count) for pair, count in ordered], names, alone)


def _read_classes(run: Folder, product: str) -> dict[str, str]:
    """Read the id of the class of each region, by region id."""
    document, folder = read_document(run / "models" / product), run / _PREDICTIONS
    ids = [each["id"] for each in document["classes"]]
    found: dict[str, str] = {}
    try:
        for name in folder.names():
            rows = folder.read_table(name, ["product", "region_id", "cls"])
            own = rows.filter(pc.equal(rows.column("product"), product))
            found |= {row["region_id"]: ids[row["cls"]] for row in own.to_pylist()}
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder}: cannot be read ({error}); submit the job again") from error
    return found


def _read_names(run: Folder, found: Mapping[str, str]) -> dict[str, str]:
    """Find what the classes of regions are called today, by id; a merged one has the name of its target."""
    ids = sorted(set(found.values()))
    titles = find_titles(read_classes(locate_root(run)), ids)
    return {class_id: title.name for class_id, title in zip(ids, titles, strict=True)}
