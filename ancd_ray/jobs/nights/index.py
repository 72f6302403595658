"""What the list of nights shows of each night and product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

ALERTS = 20  # of a night that are listed; the others are counted


@dataclass(frozen=True)
class NightRow:
    """A night in the list.

    Parameters
    ----------
    started_at, href
        When it started, and the link of its report; None if its run was cleaned away.
    numbers
        Numbers of images (new, unknown, quarantined), and of alerts.
    alerts
        Alerts as (kind, product, text), not more than are listed.
    """

    started_at: datetime
    href: str | None
    numbers: tuple[int, int, int, int]
    alerts: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class ProductRow:
    """A product over all nights of the list: numbers of nights and images, and its last night with new images."""

    name: str
    nights: int
    new: int
    unknown: int
    quarantined: int
    last: NightRow | None


def describe_night(night: Mapping[str, Any]) -> NightRow:
    """Collect the row of a night."""
    products = night["products"]
    alerts = [(alert["kind"], alert["product"], alert["text"]) for alert in night["alerts"]]
    unknown, quarantined = (sum(product[key] for product in products) for key in ("unknown", "quarantined"))
    numbers = (night["new"], unknown, quarantined, len(alerts))
    return NightRow(datetime.fromisoformat(night["started_at"]), night["href"], numbers, alerts[:ALERTS])


def name_products(nights: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the products that have images or alerts in any night."""
    return sorted({each["product"] for night in nights for each in (*night["products"], *night["alerts"])})


def count_products(
    nights: Sequence[Mapping[str, Any]], rows: Sequence[NightRow], names: Sequence[str]
) -> list[ProductRow]:
    """Sum the numbers of each product over nights, which come newest first, with their rows."""
    numbers = dict.fromkeys(names, (0, 0, 0, 0))
    last: dict[str, NightRow] = {}
    for night, row in zip(nights, rows, strict=True):
        for product in (each for each in night["products"] if each["new"]):
            name = product["product"]
            last.setdefault(name, row)
            count, new, unknown, quarantined = numbers[name]
            numbers[name] = (
                count + 1,
                new + product["new"],
                unknown + product["unknown"],
                quarantined + product["quarantined"],
            )
    return [ProductRow(name, *numbers[name], last.get(name)) for name in names]


def tell_script(
    nights: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[dict[int, tuple[int, int, int, int]]]:
    """Collect what the script needs to show a single product.

    Returns
    -------
    For each night, the numbers of a `NightRow` of those products that have new images or alerts, by the index of the
    product.
    """
    index = {name: i for i, name in enumerate(names)}
    told = []
    for night in nights:
        alerts = Counter(alert["product"] for alert in night["alerts"])
        numbers = {index[name]: (0, 0, 0, n) for name, n in alerts.items()}
        for product in (each for each in night["products"] if each["new"]):
            name = product["product"]
            numbers[index[name]] = (product["new"], product["unknown"], product["quarantined"], alerts[name])
        told.append(numbers)
    return told
