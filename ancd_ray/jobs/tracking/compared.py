"""Two models side by side: their figures and classes, of runs or of registered versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from ancd_ray.jobs.results import RECORD, locate_root
from ancd_ray.jobs.tracking.card import FIGURES
from ancd_ray.jobs.tracking.discovery import open_discovery, read_card
from ancd_ray.jobs.tracking.flow import ClassFlow, read_flow
from ancd_ray.jobs.tracking.registry import URI, find_version, read_classes
from ancd_ray.jobs.tracking.store import TrackingStore

_ABOUT = ("product", "job", "run", "method", "detector", "backbone", "images", "regions")
_UNKNOWN = "–"


@dataclass(frozen=True)
class Compared:
    """A model that is compared: what it is called, its tags, and the folder of its run, if that is there."""

    place: str
    tags: Mapping[str, str]
    run: Folder | None


def find_models(
    places: Sequence[str], product: str | None, open_registry: Callable[[], TrackingStore], output: str | None
) -> list[Compared]:
    """Find models to compare.

    Parameters
    ----------
    places
        Run folders, or models:/NAME, models:/NAME@alias, models:/NAME/version.
    product
        Product of runs with several.
    open_registry
        Opens the registry; is called if one of the places is in it.
    output
        Output folder in which runs of registered models are looked for; None: that of a place that is a run folder.

    Raises
    ------
    StoreError, ModelError, TrackingProblem
        There is no such run or model.
    """
    runs = [Folder(place) for place in places if not place.startswith(URI)]
    roots = [Folder(output)] if output else [locate_root(run) for run in runs]
    found = []
    for place in places:
        if place.startswith(URI):
            tags = _read_registered(place, open_registry())
            folders = [root / "runs" / tags.get("run", "-") for root in roots]
            found.append(Compared(place, tags, next((each for each in folders if each.exists(RECORD)), None)))
        else:
            found.append(Compared(place, _read_run(place, product), Folder(place)))
    return found


def list_differences(models: Sequence[Compared]) -> list[tuple[str, ...]]:
    """List the rows of a table, each a name and what every model has.

    Classes are listed in the order of their numbers. The same number in two models is not the same class; the label
    that most regions of a class have says more.
    """
    tags = [model.tags for model in models]
    rows: list[tuple[str, ...]] = [(name, *(each.get(name, _UNKNOWN) for each in tags)) for name in (*_ABOUT, *FIGURES)]
    classes = [read_classes(each) for each in tags]
    rows.append(("classes", *(str(len(each)) if each else _UNKNOWN for each in classes)))
    for found in zip_longest(*classes):
        names = dict.fromkeys(each[0] for each in found if each)
        rows.append((" / ".join(names), *(_describe(each) for each in found)))
    return rows


def compare_classes(first: Compared, second: Compared) -> ClassFlow:
    """Count the regions of two models by their classes in both.

    Raises
    ------
    StoreError, ModelError
        The run of a model is not there, or cannot be read, or the models are of two products.
    """
    for model in (first, second):
        if model.run is None:
            raise StoreError(
                f"{model.place}: its run {model.tags.get('run', '')} is not there, so its regions are not known; name "
                "its output folder with --output, or take a run folder in its place"
            )
    products = first.tags.get("product", ""), second.tags.get("product", "")
    if products[0] != products[1]:
        raise StoreError(f"{first.place} is a model of {products[0]}, {second.place} one of {products[1]}")
    assert first.run
    assert second.run
    return read_flow((first.run, second.run), products[0], (first.place, second.place))


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
