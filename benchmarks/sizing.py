"""How many cores an archive needs: a simulation of the classify pass with rates that were measured.

    python benchmarks/sizing.py runs/plant                            # rates of a job's output folder, this machine
    python benchmarks/sizing.py --ms 180 --bytes 6000                 # core milliseconds and bytes of results an image
    python benchmarks/sizing.py runs/plant --check 2000:95 2000:183:1 # images:seconds[:cores] that were measured

A night is divided as the engine divides it: shards of 16 to 512 images, which are the rows of tasks of Ray Data. A
task goes to the core that is free first, takes its images' time (with the spread of real shards) and its own
overhead; each core loads the model once. Before and after come the start of Ray, the listing of the archive, which
grows with all that is known, and the publication of what is new.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ancd_ray.engine.calls import BLOCKS_A_CORE, ROWS_A_BLOCK
from ancd_ray.engine.context import shard_rows

STAGE = "classify_images"
NIGHTS = 30  # a month
GIB = 2**30


@dataclass(frozen=True)
class Rates:
    """What was measured: seconds and bytes.

    Parameters
    ----------
    image
        Core seconds of an image.
    size
        Bytes of results of an image.
    start
        Start of the command and of Ray.
    load
        Start of a worker's process with its model.
    task
        Overhead of a task of Ray Data.
    listed
        Driver's seconds for an image of the archive, known or new, that is listed and compared.
    published
        Driver's seconds for an image that is published.
    spread
        Standard deviation of the time of a shard, as a share of it.
    """

    image: float
    size: float
    start: float = 12.0
    load: float = 4.0
    task: float = 0.05
    listed: float = 40e-6
    published: float = 150e-6
    spread: float = 0.1


def simulate(images: int, known: int, cores: int, rates: Rates, seed: int = 0) -> float:
    """Simulate a night; returns its seconds from the command to the published tables."""
    rng = np.random.default_rng(seed)
    rows = shard_rows(images)
    shards = [min(rows, images - start) for start in range(0, images, rows)]
    tasks = min(len(shards), max(BLOCKS_A_CORE * cores, images // ROWS_A_BLOCK))
    free = [rates.load] * cores
    heapq.heapify(free)
    for task in np.array_split(shards, tasks):
        noise = rng.normal(1, rates.spread / math.sqrt(len(task)))
        heapq.heappush(free, heapq.heappop(free) + rates.task + float(task.sum()) * rates.image * max(noise, 0.1))
    driver = rates.listed * (known + images) + rates.published * images
    return rates.start + driver + max(free)


def find_cores(images: int, known: int, hours: float, rates: Rates) -> int | None:
    """Find the smallest number of cores (1, 2, 4, ...) with which a night ends in time; None if there is none."""
    sizes = [2**i for i in range(15)]
    return next((cores for cores in sizes if simulate(images, known, cores, rates) <= hours * 3600), None)


def read_rates(output: Path) -> Rates:
    """Read the rates of the classify pass from an output folder, by the run with the most images."""
    kinds = json.loads((output / "rates.json").read_text())
    found = {kind: runs for kind, runs in kinds.items() if kind.startswith(f"{STAGE} ")}
    if not found:
        raise SystemExit(f"{output}: no rates of {STAGE}; submit a job over an archive that has grown")
    kind, runs = max(found.items(), key=lambda item: len(item[1]))
    cores = int(kind.rpartition("cpus=")[2] or os.cpu_count() or 1)
    images, seconds, size = max(runs)
    busy = max(seconds - Rates.load, 0) * cores / images  # the models are loaded before the first image
    print(f"{kind}: {1000 * busy:.0f} core ms and {size / images:,.0f} bytes an image")
    return Rates(busy, size / images)


def make_table(rates: Rates, per_month: list[int], hours: float) -> Iterator[str]:
    """Make the lines of a Markdown table."""
    yield f"| images a month | a night | cores for {hours:g} h | its length | results a month |"
    yield "|---|---|---|---|---|"
    for month in per_month:
        night = month // NIGHTS
        cores = find_cores(night, month, hours, rates)
        length = simulate(night, month, cores, rates) / 3600 if cores else math.nan
        yield f"| {month:,} | {night:,} | {cores or 'none'} | {length:.1f} h | {month * rates.size / GIB:,.0f} GiB |"


def main() -> None:
    """Print what to order, and how far the simulation is from what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?", help="output folder with rates.json")
    parser.add_argument("--ms", type=float, help="core milliseconds an image")
    parser.add_argument("--bytes", type=float, default=6000, help="bytes of results an image")
    parser.add_argument("--hours", type=float, default=6, help="length of a night")
    parser.add_argument("--months", type=int, nargs="+", default=[10**6, 10**7, 10**8], help="images a month")
    parser.add_argument("--check", nargs="+", default=[], help="images:seconds[:cores] that were measured")
    asked = parser.parse_args()
    if asked.ms is None and asked.output is None:
        parser.error("give an output folder or --ms")
    rates = read_rates(asked.output) if asked.output else Rates(asked.ms / 1000, asked.bytes)
    if asked.ms is not None:
        rates = replace(rates, image=asked.ms / 1000)
    print("\n".join(make_table(rates, asked.months, asked.hours)))
    for check in asked.check:
        images, seconds, *cores = check.split(":")
        n_cores = int(cores[0]) if cores else os.cpu_count() or 1
        predicted = simulate(int(images), 0, n_cores, rates)
        print(f"{images} images on {n_cores} cores: simulated {predicted:.0f} s, measured {float(seconds):.0f} s")


if __name__ == "__main__":
    main()
