"""Counts of regions at 64 levels by one union-find, compared with threshold, erosion and labelling at every level.

python benchmarks/mebin.py
"""

from __future__ import annotations

import statistics

import cv2
import numpy as np
from literal import region_counts as literal_counts
from timing import compare, describe_machine, format_time

from ancd_ray.method import mebin

MAPS = 5


def realistic(side: int, seed: int) -> tuple[np.ndarray, int, int]:
    """Generate a map with a smooth background up to the lower end of the range, one to three blobs, and some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(side // 8, side // 8)).astype(np.float32)
    ground = cv2.GaussianBlur(cv2.resize(coarse, (side, side)), (0, 0), side / 64)
    values = 10 + 60 * (ground - ground.min()) / (ground.max() - ground.min())
    blobs = np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        centre = tuple(int(v) for v in rng.integers(side // 8, 7 * side // 8, 2))
        axis = int(rng.integers(side // 40, side // 10))
        axes = (axis, int(axis * rng.uniform(0.3, 1)))
        cv2.ellipse(blobs, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(80, 200), -1)
    values += cv2.GaussianBlur(blobs, (0, 0), side / 64) + rng.normal(0, 1.5, (side, side))
    return np.clip(values, 0, 255).astype(np.uint8), 60, 255


def noise(side: int, seed: int) -> tuple[np.ndarray, int, int]:
    """Generate a map of uniform noise over the whole range: nearly all pixels exceed the lowest level."""
    return np.random.default_rng(seed).integers(0, 256, (side, side)).astype(np.uint8), 0, 255


def main() -> None:
    """Print a row for each kind and size of map."""
    cv2.setNumThreads(1)  # as in a job, where each map is processed on one core
    print(describe_machine())
    print("| map | pixels | literal | numba | ratio (least) | OpenCV alone | ratio |")
    print("|---|---|---|---|---|---|---|")
    for kind in (realistic, noise):
        for side in (256, 512, 1024):
            rows = [_measure(*kind(side, seed)) for seed in range(MAPS)]
            fast, plain = [row[0] for row in rows], [row[1] for row in rows]
            ratios = [pair.ratio for pair in fast]
            print(
                f"| {kind.__name__} | {side}² | {format_time(statistics.median(p.slow for p in fast))} "
                f"| {format_time(statistics.median(p.fast for p in fast))} "
                f"| **{statistics.median(ratios):.0f}×** ({min(ratios):.0f}×) "
                f"| {format_time(statistics.median(p.fast for p in plain))} "
                f"| {statistics.median(p.ratio for p in plain):.1f}× |"
            )


def _measure(values: np.ndarray, lo: int, hi: int) -> tuple:
    levels = mebin.thresholds(lo, hi, is_integer=True)

    def literal() -> np.ndarray:
        return literal_counts(values, levels)

    def opencv() -> np.ndarray:
        return mebin.counts_level_by_level(mebin._erode(values, 6), levels)

    def union_find() -> np.ndarray:
        return mebin.region_counts(values, levels, 6)

    assert literal().tolist() == opencv().tolist() == union_find().tolist()
    return compare(union_find, literal, times=10), compare(opencv, literal)


if __name__ == "__main__":
    main()
