"""Coordinates of the small drawings of nights: control charts of classes, and new images over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ancd_ray.jobs.nights.model import HISTORY, ControlChart

Point = tuple[float, float]
CHART = (180, 44)  # width and height of a control chart
LINE = (720, 120)  # of the line of new images over all nights
MARGIN = 6  # room for the marks at the borders


@dataclass(frozen=True)
class Drawing:
    """A line in a box with the origin at the top left, and the band and the mean it is compared with.

    Parameters
    ----------
    points
        A point for each value.
    band
        Top and height of the band of usual values; None if there are no limits.
    mean
        Height of the mean.
    """

    points: Sequence[Point]
    band: tuple[float, float] | None = None
    mean: float | None = None

    @property
    def path(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)


def draw_chart(chart: ControlChart) -> Drawing:
    """Place the last days of a control chart, with the limits as a band; heights range from the lowest to the highest.

    They need not begin at zero: a class with a thousand images a day would be a flat line.
    """
    counts = list(chart.counts)[-HISTORY - 1 :]
    limits = [max(value, 0) for value in (chart.lower, chart.upper) if value is not None]
    values = [*counts, *limits, *([] if chart.mean is None else [chart.mean])]
    span = (min(values), max(values)) if values else (0, 0)
    points = _place(counts, span, CHART)
    mean = None if chart.mean is None else _height(chart.mean, span, CHART[1])
    if len(limits) < 2:
        return Drawing(points, None, mean)
    low, high = (_height(value, span, CHART[1]) for value in limits)
    return Drawing(points, (high, round(low - high, 1)), mean)


def draw_line(counts: Sequence[int]) -> Drawing:
    """Place the numbers of new images of all nights, the oldest first; heights begin at zero."""
    return Drawing(_place(counts, (0, max(counts, default=0)), LINE))


def _place(counts: Sequence[int], span: tuple[float, float], size: tuple[int, int]) -> list[Point]:
    """Place values at equal distances; a single one is at the right, where the last one always is."""
    step = (size[0] - 2 * MARGIN) / max(len(counts) - 1, 1)
    left = size[0] - MARGIN - step * (len(counts) - 1)
    return [(round(left + step * i, 1), _height(count, span, size[1])) for i, count in enumerate(counts)]


def _height(value: float, span: tuple[float, float], height: int) -> float:
    """Place a value between the lowest and the highest one, which are at least 1 apart."""
    low, high = span
    return round(height - MARGIN - (height - 2 * MARGIN) * (value - low) / max(high - low, 1), 1)
