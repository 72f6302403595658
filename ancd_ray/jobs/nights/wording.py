"""What the report of a night says in words, for readers who do not know the program."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from math import ceil, floor

from ancd_ray.jobs.nights.model import CandidateClass, ControlChart, Drift

# Titles of alerts by kind.
ALERTS = {
    "new_class": "New kind of defect",
    "control_limit": "Unusual number",
    "unknown": "Unknown defects",
    "quarantine": "Unusable files",
    "drift": "Images have changed",
    "left_out": "Not sorted",
}


@dataclass(frozen=True)
class DriftText:
    """How a figure of `Drift` is called and explained, and the verdict if it is above its limit."""

    name: str
    hint: str
    outside: str


DRIFTS = {
    "score": DriftText(
        "Anomaly scores",
        "How unusual the images look to the program; 0 means that they are spread as before.",
        "The images look different than before: check camera, light and material.",
    ),
    "confidence": DriftText(
        "Confidence",
        "How sure the program is of the classes that it chooses; 0 means that it is as sure as before.",
        "The program is not as sure as before, or surer: look at the least certain pictures.",
    ),
    "brightness": DriftText(
        "Brightness",
        "How bright the images are on average; 0 means that they are as bright as before.",
        "The images are brighter or darker than before: check light and exposure.",
    ),
    "unknown": DriftText(
        "Unknown images",
        "Share of the new images whose defects resemble no known class.",
        "More than usual resemble no class: look at the unknown pictures.",
    ),
    "quarantined": DriftText(
        "Unusable files",
        "Share of the new images that cannot be read or used.",
        "More files than usual are broken: check cameras and copying.",
    ),
}
_SHARES = ("unknown", "quarantined")  # figures that are shares of images; the others are stability indices


def alert_title(kind: str) -> str:
    """Return the title of a kind of alert."""
    return ALERTS.get(kind, kind)


def drift_text(drift: Drift) -> DriftText:
    """Return name, explanation and verdict of a figure."""
    return DRIFTS.get(drift.figure, DriftText(drift.figure, "", "Above its limit."))


def drift_values(drift: Drift) -> list[str]:
    """Format the values of a figure: of the night, before, and the limit."""
    values = (drift.value, drift.before, drift.limit)
    if drift.figure in _SHARES:
        return ["–" if value is None else f"{100 * value:.1f}\N{NBSP}%" for value in values]
    return ["–" if value is None else f"{value:.2f}" for value in values]


def usual_range(chart: ControlChart) -> str:
    """Say in which range the images a day usually are."""
    if chart.lower is None or chart.upper is None:
        return "too few earlier days to say what is usual"
    if chart.is_first:
        return f"a class that was not seen on the {len(chart.counts) - 1} days before"
    low, high = ceil(max(chart.lower, 0)), floor(chart.upper)
    return f"usually {low:,} to {high:,}" if low < high else f"usually {high:,}"


def judge_count(chart: ControlChart) -> str:
    """Say whether the last day is unusual; empty if it is not, or if nothing is known to compare it with."""
    if not chart.is_outside:
        return ""
    if chart.is_first:
        return "first seen"
    return "more than usual" if chart.upper is not None and chart.counts[-1] > chart.upper else "fewer than usual"


def speed(images: int, seconds: float) -> str:
    """Say how many images a second were sorted."""
    rate = images / seconds
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def accept_command(candidate: CandidateClass) -> str:
    """Make the command that accepts a candidate; OUTPUT stands for the output folder of the job."""
    return f"ancd-ray classes accept OUTPUT {shlex.quote(candidate.id)}"
