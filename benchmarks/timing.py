"""Alternating time measurements of two implementations in one process, and a description of the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

Call = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    """Median seconds of a fast and a slow implementation, and the median of the ratios by turn."""

    fast: float
    slow: float
    ratio: float


def compare(fast: Call, slow: Call, turns: int = 5, times: int = 1) -> Pair:
    """Time two calls in turns, after a warm-up call of each; the fast one is called `times` times per turn."""
    fast()
    slow()
    pairs = [(time_call(fast, times), time_call(slow)) for _ in range(turns)]
    return Pair(
        statistics.median(f for f, _ in pairs),
        statistics.median(s for _, s in pairs),
        statistics.median(s / f for f, s in pairs),
    )


def time_call(call: Call, times: int = 1) -> float:
    """Measure the wall-clock seconds of a call, as the mean of `times` calls."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def format_time(value: float) -> str:
    """Format seconds with a suitable unit."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"


def describe_machine() -> str:
    """Describe processor, cores and libraries in one line."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as info:
            name = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    libraries = ", ".join(f"{lib} {version(lib)}" for lib in ("torch", "opencv-python-headless", "numpy", "ray"))
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}"


def plot_growth(images: Sequence[int], milliseconds: Sequence[float], path: Path) -> None:
    """Write a small SVG plot of milliseconds an image by the number of images."""
    left, top, width, height = 60, 20, 420, 180
    highest = 1.3 * max(milliseconds)
    points = [
        (left + width * i / max(len(images) - 1, 1), top + height * (1 - value / highest))
        for i, value in enumerate(milliseconds)
    ]
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="520" height="250" font-family="sans-serif" font-size="12">',
        f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#888"/>',
        f'<polyline points="{" ".join(f"{x:.0f},{y:.0f}" for x, y in points)}" fill="none" stroke="#1f6feb" '
        'stroke-width="2"/>',
        '<text x="8" y="14">ms an image</text>',
    ]
    for (x, y), n, value in zip(points, images, milliseconds, strict=True):
        lines.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="#1f6feb"/>')
        lines.append(f'<text x="{x:.0f}" y="{y - 10:.0f}" text-anchor="middle">{value:.2f}</text>')
        lines.append(f'<text x="{x:.0f}" y="{top + height + 18}" text-anchor="middle">{n:,} images</text>')
    path.write_text("\n".join([*lines, "</svg>"]), encoding="utf-8")
