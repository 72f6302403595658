"""Statistics of a night: control charts of classes, and drift against the days before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.jobs.nights.model import HISTORY, ControlChart

_FEWEST_DAYS = 5  # from which limits are computed
_BINS = 10
# Least n·m / (n + m) of a comparison of samples of n and m values. Chance alone gives a mean PSI of 9 (n + m) / (n·m):
# 0.11 here, and above 0.25, the default limit, in about 4 nights of a hundred.
_FEWEST = 80
_EMPTY = 1e-4  # share of a bin without values


def make_chart(counts: Mapping[date, int], days: Sequence[date]) -> ControlChart:
    """Make the c-chart of a class.

    Parameters
    ----------
    counts
        Number of its images a day; a day without is missing.
    days
        All days that have images of the product, in order; the last one is the night.
    """
    shown = list(days[-HISTORY - 1 :])
    values = [counts.get(day, 0) for day in shown]
    if len(values) <= _FEWEST_DAYS:
        return ControlChart(shown, values)
    mean = float(np.mean(values[:-1]))
    return ControlChart(shown, values, mean, max(0.0, mean - 3 * sqrt(mean)), mean + 3 * sqrt(mean))


def measure_stability(before_N: NDArray[Any], now_M: NDArray[Any]) -> float | None:
    """Compute the population stability index of two samples; None if they are so small that it would be chance.

    PSI = Σ (q − p) ln(q / p) over the tenths of the sample before. Below 0.1 nothing has changed, above 0.25 much has.
    """
    n, m = len(before_N), len(now_M)
    if n * m < _FEWEST * (n + m) or not n:
        return None
    edges = np.unique(np.quantile(before_N, np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = [
        np.maximum(np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values), _EMPTY)
        for values in (before_N, now_M)
    ]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
