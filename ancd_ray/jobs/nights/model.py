"""The content of the report of a night as plain values: the interface between who collects it and who renders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

from ancd_ray.jobs.report import GalleryItem

HISTORY = 30  # days before a night that it is compared with


@dataclass(frozen=True)
class ControlChart:
    """Numbers of images of a class a day, and the limits in which they usually are (a c-chart).

    Parameters
    ----------
    days, counts
        The last days that have images of the product, and the numbers of the class.
    mean, lower, upper
        Mean of the days before the night, and the limits mean ± 3 √mean; None with fewer than five such days.
    """

    days: Sequence[date]
    counts: Sequence[int]
    mean: float | None = None
    lower: float | None = None
    upper: float | None = None

    @property
    def is_outside(self) -> bool:
        """Whether the last day is outside of the limits."""
        if self.lower is None or self.upper is None or not self.counts:
            return False
        return not self.lower <= self.counts[-1] <= self.upper

    @property
    def is_first(self) -> bool:
        """Whether the last day has images, and none of the days before has any, of which there are enough."""
        return self.is_outside and self.mean == 0


@dataclass(frozen=True)
class NightClass:
    """A class in a night: its id and name, images of the night, and its control chart over the last days."""

    id: str
    name: str
    images: int
    chart: ControlChart


@dataclass(frozen=True)
class CandidateClass:
    """A candidate for a new class, found in this night: regions, images, separateness, and pictures of regions."""

    id: str
    status: str  # candidate | active
    regions: int
    images: int
    separateness: float
    pictures: Sequence[GalleryItem] = ()


@dataclass(frozen=True)
class Drift:
    """Change of a figure against the days before: the population stability index, or two shares.

    Parameters
    ----------
    figure
        `score`, `confidence`, `brightness` (distributions, with a PSI), `unknown` or `quarantined` (shares of images).
    value
        PSI of the night, or share in it.
    before
        Share before; None for distributions.
    limit
        Value above which it is told.
    """

    figure: str
    value: float
    before: float | None
    limit: float

    @property
    def is_outside(self) -> bool:
        """Whether the value is above its limit."""
        return self.value > self.limit


@dataclass(frozen=True)
class ProductNight:
    """A product in a night.

    Parameters
    ----------
    product, model
        Its name, and the digest of its model.
    new, known, deleted, quarantined
        Numbers of images: new ones (quarantined ones included), known ones, those that are gone, and new ones that
        cannot be used.
    unknown
        New images that resemble no class.
    pool
        Unknown regions of all nights that belong to no class yet.
    classes
        Its classes, those with most images of the night first.
    candidates
        Classes that were found in the pool.
    drift
        Figures against the days before.
    unknown_pictures, uncertain_pictures
        Pictures of unknown regions, and of those with the lowest confidence.
    quarantine
        Names of files that cannot be used, with the reason.
    """

    product: str
    model: str
    new: int
    known: int
    deleted: int
    quarantined: int
    unknown: int
    pool: int
    classes: Sequence[NightClass] = ()
    candidates: Sequence[CandidateClass] = ()
    drift: Sequence[Drift] = ()
    unknown_pictures: Sequence[GalleryItem] = ()
    uncertain_pictures: Sequence[GalleryItem] = ()
    quarantine: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Alert:
    """Something that a person should look at: its kind, product, and one line."""

    kind: str  # new_class | control_limit | unknown | quarantine | drift | left_out
    product: str
    text: str


@dataclass(frozen=True)
class Night:
    """A night over all products.

    Parameters
    ----------
    job, run
        Names of the job and of the run folder.
    started_at, seconds
        When it started, and how long it took.
    products
        What was found, by product.
    left_out
        Products that could not be classified, with the reason.
    alerts
        What a person should look at.
    """

    job: str
    run: str
    started_at: datetime
    seconds: float
    products: Sequence[ProductNight] = ()
    left_out: Sequence[tuple[str, str]] = ()
    alerts: Sequence[Alert] = field(default_factory=tuple)

    @property
    def new(self) -> int:
        """Number of new images."""
        return sum(product.new for product in self.products)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON-like values, without pictures."""
        return {
            "job": self.job,
            "run": self.run,
            "started_at": self.started_at.isoformat(),
            "seconds": self.seconds,
            "new": self.new,
            "images_per_second": round(self.new / self.seconds, 2) if self.seconds else None,
            "products": [_describe_product(product) for product in self.products],
            "left_out": [{"product": product, "reason": reason} for product, reason in self.left_out],
            "alerts": [asdict(alert) for alert in self.alerts],
        }


def _describe_product(product: ProductNight) -> dict[str, Any]:
    plain = ("product", "model", "new", "known", "deleted", "quarantined", "unknown", "pool")
    return {
        **{name: getattr(product, name) for name in plain},
        "classes": [
            {"id": each.id, "name": each.name, "images": each.images, **_describe_chart(each.chart)}
            for each in product.classes
        ],
        "candidates": [
            {name: getattr(each, name) for name in ("id", "status", "regions", "images", "separateness")}
            for each in product.candidates
        ],
        "drift": [{**asdict(each), "is_outside": each.is_outside} for each in product.drift],
        "quarantine": [{"file": file, "reason": reason} for file, reason in product.quarantine],
    }


def _describe_chart(chart: ControlChart) -> dict[str, Any]:
    days = [day.isoformat() for day in chart.days]
    limits = {name: getattr(chart, name) for name in ("mean", "lower", "upper")}
    return {"days": days, "counts": list(chart.counts), **limits, "is_outside": chart.is_outside}
