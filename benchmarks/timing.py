"""Medians of two ways of doing the same thing, taken in turns in one process, and the machine that they ran on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

Call = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    """Median seconds of a fast and a slow form, and the median of the ratios of each turn."""

    fast: float
    slow: float
    ratio: float


def compare(fast: Call, slow: Call, turns: int = 5, times: int = 1) -> Pair:
    """Both in turns, after one call each that does not count; `times` calls of the fast form are one measurement."""
    fast()
    slow()
    pairs = [(seconds(fast, times), seconds(slow)) for _ in range(turns)]
    return Pair(
        statistics.median(f for f, _ in pairs),
        statistics.median(s for _, s in pairs),
        statistics.median(s / f for f, s in pairs),
    )


def seconds(call: Call, times: int = 1) -> float:
    """Wall clock of a call, the mean of `times`."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def shown(value: float) -> str:
    """Seconds with a unit that suits them."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"


def machine() -> str:
    """Processor, cores and libraries, for the line above a table."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as info:
            name = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    libraries = ", ".join(f"{lib} {version(lib)}" for lib in ("torch", "opencv-python-headless", "numpy", "ray"))
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}"
