"""A realistic night, built from demo images: what the tests render and look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np
from sample_report import region

from ancd_ray.jobs.nights.model import (
    Alert,
    CandidateClass,
    ControlChart,
    Drift,
    Night,
    NightClass,
    ProductNight,
)
from ancd_ray.jobs.report import GalleryItem

STARTED = datetime(2026, 3, 14, 22, 5, tzinfo=timezone.utc)


def chart(mean: float, tonight: int, days: int = 30, seed: int = 0) -> ControlChart:
    """Counts that vary as chance has it around a mean, with those of tonight last."""
    before = np.random.default_rng(seed).poisson(mean, days).tolist()
    dates: list[date] = [STARTED.date() - timedelta(days - i) for i in range(days + 1)]
    found = float(np.mean(before)) if days else 0.0
    spread = 3 * found**0.5
    limits = (found, max(found - spread, 0), found + spread) if days >= 5 else (None, None, None)
    return ControlChart(dates, [*before, tonight], *limits)


def pictures(kind: str, number: int, first: int = 0) -> list[GalleryItem]:
    """Regions of demo images of a kind, without labels."""
    return [
        replace(region(kind, first + i, 0.28 + 0.03 * i, f"s3://plant/line4/2026-03-14/{4711 + i}.png"), label=None)
        for i in range(number)
    ]


def busy_product(name: str = "tile") -> ProductNight:
    """A product with a candidate, unknown regions, an unusual class, drift and broken files."""
    rows = (("normal", 880.0, 861), ("scratch", 31.0, 29), ("hole", 12.0, 41), ("stain", 7.0, 5), ("", 2.0, 1))
    classes = [
        NightClass(f"{name}-c{i:04d}", label or f"{name}-c{i:04d}", tonight, chart(mean, tonight, seed=i))
        for i, (label, mean, tonight) in enumerate(rows)
    ]
    return ProductNight(
        name,
        "sha256-4f1d",
        new=974,
        known=28_110,
        deleted=12,
        quarantined=3,
        unknown=37,
        pool=64,
        classes=classes,
        candidates=[
            CandidateClass(f"{name}-c0007", "candidate", 21, 18, 2.34, pictures("crack", 8)),
            CandidateClass(f"{name}-c0006", "active", 12, 12, 1.61, pictures("stain", 4)),
        ],
        drift=[
            Drift("score", 0.31, None, 0.25),
            Drift("confidence", 0.04, None, 0.25),
            Drift("brightness", 0.07, None, 0.25),
            Drift("unknown", 0.038, 0.006, 0.02),
            Drift("quarantined", 0.003, 0.002, 0.02),
        ],
        unknown_pictures=pictures("crack", 6, 30),
        uncertain_pictures=pictures("hole", 6, 60),
        quarantine=[
            ("s3://plant/line4/2026-03-14/4802.png", "the file is cut short"),
            ("s3://plant/line4/2026-03-14/4917.png", "the file is cut short"),
            ("s3://plant/line4/2026-03-14/5003.png", "no image: it begins with b'<html>'"),
        ],
    )


def quiet_product(name: str) -> ProductNight:
    """A product in which nothing is unusual."""
    classes = [
        NightClass(f"{name}-c0000", "normal", 120, chart(118, 120)),
        NightClass(f"{name}-c0001", "dent", 3, chart(4, 3, days=3)),
    ]
    return ProductNight(
        name, "sha256-77aa", 123, 4012, 0, 0, 0, 2, classes=classes, drift=[Drift("score", 0.02, None, 0.25)]
    )


def night_of(*products: ProductNight, **changes: Any) -> Night:
    """A night over the products, without alerts."""
    return replace(Night("plant", "2026-03-14T22-05-00", STARTED, 751.0, products), **changes)


def busy_night() -> Night:
    """A night with alerts, over two products, with one left out."""
    return night_of(
        busy_product(),
        quiet_product("Blech – Süd"),
        left_out=[("bracket", "there is no finished discovery of this product: run one with `mode: discover`")],
        alerts=[
            Alert("new_class", "tile", "21 unknown regions look alike: candidate tile-c0007"),
            Alert("control_limit", "tile", "41 images of hole, usually 2 to 22"),
            Alert("unknown", "tile", "3.8 % of the new images resemble no class, before 0.6 %"),
            Alert("left_out", "bracket", "12 images were not sorted: no finished discovery"),
        ],
    )


def described(nights: Sequence[Night]) -> list[dict[str, Any]]:
    """Nights as the list takes them."""
    return [{**night.describe(), "href": f"{night.run}/night.html"} for night in nights]


def weeks(days: int = 21) -> list[dict[str, Any]]:
    """Nights of some weeks, the last of them the busy one."""
    rng = np.random.default_rng(3)
    nights = []
    for before in range(days, 0, -1):
        started = STARTED - timedelta(before)
        new = int(rng.poisson(950))
        quiet = replace(quiet_product("tile"), new=new, unknown=int(rng.poisson(6)))
        products = [quiet] if before % 7 else []
        nights.append(night_of(*products, started_at=started, run=started.strftime("%Y-%m-%dT%H-%M-%S")))
    return described([*nights, busy_night()])
