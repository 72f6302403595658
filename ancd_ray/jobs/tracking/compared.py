"""Two models side by side: their figures and classes, of runs or of registered versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

from ancd_ray.data.store import Folder
from ancd_ray.jobs.tracking.card import FIGURES
from ancd_ray.jobs.tracking.discovery import open_discovery, read_card
from ancd_ray.jobs.tracking.registry import URI, find_version, read_classes
from ancd_ray.jobs.tracking.store import TrackingStore

_ABOUT = ("product", "job", "run", "method", "detector", "backbone", "images", "regions")
_UNKNOWN = "–"


def compare(
    places: Sequence[str], product: str | None, open_registry: Callable[[], TrackingStore]
) -> list[tuple[str, ...]]:
    """Compare models: rows of a table, each a name and what every model has.

    Classes are listed in the order of their numbers. The same number in two models is not the same class; the label
    that most regions of a class have says more.

    Parameters
    ----------
    places
        Run folders, or models:/NAME, models:/NAME@alias, models:/NAME/version.
    product
        Product of runs with several.
    open_registry
        Opens the registry; is called if one of the places is in it.

    Raises
    ------
    StoreError, ModelError, TrackingProblem
        There is no such run or model.
    """
    tags = [
        _read_registered(place, open_registry()) if place.startswith(URI) else _read_run(place, product)
        for place in places
    ]
    rows: list[tuple[str, ...]] = [(name, *(each.get(name, _UNKNOWN) for each in tags)) for name in (*_ABOUT, *FIGURES)]
    classes = [read_classes(each) for each in tags]
    rows.append(("classes", *(str(len(each)) if each else _UNKNOWN for each in classes)))
    for found in zip_longest(*classes):
        names = dict.fromkeys(each[0] for each in found if each)
        rows.append((" / ".join(names), *(_describe(each) for each in found)))
    return rows


def _describe(found: tuple[str, int, str | None] | None) -> str:
    if found is None:
        return _UNKNOWN
    _, regions, label = found
    return f"{regions:,} regions{f', mostly {label}' if label else ''}"


def _read_registered(place: str, store: TrackingStore) -> Mapping[str, str]:
    with store.connect() as client:
        return find_version(client, place).tags


def _read_run(place: str, product: str | None) -> Mapping[str, str]:
    return read_card(open_discovery(Folder(place), product), None).tags
