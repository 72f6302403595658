"""An archive that grows: a first run, a rerun with nothing to do, and a night of new images, as commands.

    python benchmarks/archive.py --images 2000 --new 20
    python benchmarks/archive.py --images 100000 --new 100
    python benchmarks/archive.py --images 100000 --new 100 --train                # the paper's training, on the sample
    python benchmarks/archive.py --growth 1000 4000 16000 64000 --plot benchmarks/partitions.svg

Images (256 px, brushed metal with four kinds of defect) and their anomaly maps are generated first. `over the work` is
the time of a command without that of its steps. `driver` is the largest memory of the process of the command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from timing import describe_machine, plot_growth

from ancd_ray.data.demo.defects import TILE_KINDS
from ancd_ray.data.demo.generate import draw

IN_A_FOLDER = 1000  # images
MAP_SIDE = 64  # pixels
MAX_STEPS = 20_000  # of a training


@dataclass(frozen=True)
class Ran:
    """A command: its wall-clock time, the largest memory of its own process, and the summary of the run."""

    seconds: float
    peak_mib: float
    summary: dict[str, Any]

    @property
    def worked(self) -> dict[str, float]:
        """Seconds of the steps that were not cached."""
        stages: dict[str, float] = {}
        for stage in self.summary["stages"]:
            if not stage["cached"]:
                stages[stage["name"]] = stages.get(stage["name"], 0) + stage["seconds"]
        return stages

    def describe(self, name: str) -> str:
        """Describe it in one line of a Markdown table."""
        work = sum(self.worked.values())
        times = [f"{seconds:.1f} s" for seconds in (self.seconds, work, self.seconds - work)]
        cells = [name, f"{self.summary['images']:,}", *times, f"{self.peak_mib:,.0f} MiB"]
        return f"| {' | '.join(cells)} |"


def generate(root: Path, start: int, stop: int, size: int) -> None:
    """Write images start … stop − 1 and their maps; folders of them that are there already are kept."""
    bounds = [(root, first, min(first + IN_A_FOLDER, stop), size) for first in range(start, stop, IN_A_FOLDER)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_write_folder, bounds))


def _write_folder(bounds: tuple[Path, int, int, int]) -> None:
    root, start, stop, size = bounds
    cv2.setNumThreads(1)
    images, maps = (root / kind / f"{start // IN_A_FOLDER:04d}" for kind in ("images", "maps"))
    for folder in (images, maps):
        folder.mkdir(parents=True, exist_ok=True)
    if all(len(list(folder.iterdir())) >= stop - start for folder in (images, maps)) and start % IN_A_FOLDER == 0:
        return
    for number in range(start, stop):
        sample = draw("tile", "test", list(TILE_KINDS)[number % len(TILE_KINDS)], number, size=size)
        heat = cv2.GaussianBlur(sample.mask.astype(np.float32), (0, 0), size / 64)
        heat = 0.8 * cv2.resize(heat, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA)
        noise = np.random.default_rng(number).normal(20, 4, heat.shape)
        cv2.imwrite(str(images / f"{number:07d}.jpg"), sample.image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(maps / f"{number:07d}.png"), np.clip(heat + noise, 0, 255).astype(np.uint8))


def submit(job: Path, *keys: str) -> Ran:
    """Run `ancd-ray submit` and measure it."""
    command = [sys.executable, "-m", "ancd_ray", "submit", str(job), *keys]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        printed.seek(0)
        folder = Path(printed.read().splitlines()[-1])
    return Ran(seconds, usage.ru_maxrss / 1024, json.loads((folder / "summary.json").read_text()))


def write_job(folder: Path, sample: int, train: bool) -> Path:
    """Write the job file."""
    document = {
        "name": "archive",
        "data": {
            "root": str(folder / "archive"),
            "products": [{"name": "tile", "layout": "folder", "path": "images", "maps": "maps"}],
        },
        "detector": {"name": "precomputed", "value_range": [0, 255]},
        "discovery": {"method": "anomalyncd" if train else "ward", "max_regions": sample},
        "classes": {"novel": len(TILE_KINDS), "normal": "no"},
        "train": {"max_steps": MAX_STEPS},
        "keep": "none",
        "output": str(folder / "out"),
    }
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump(document))
    return job


def measure_nights(folder: Path, images: int, new: int, sample: int, size: int, train: bool) -> None:
    """Measure the first run, a rerun, and a night of new images."""
    generate(folder / "archive", 0, images, size)
    job = write_job(folder, sample, train)
    print("| | images | wall | steps | over the work | driver |\n|---|---|---|---|---|---|")
    first = submit(job)
    print(first.describe("first run"), flush=True)
    print(submit(job).describe("again"), flush=True)
    generate(folder / "archive", images, images + new, size)
    night = submit(job)
    print(night.describe(f"{new} new"), flush=True)
    print(submit(job).describe("again"))
    print(f"\nsteps of the first run: {first.worked}\nof the night: {night.worked}")
    used = sum(path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file())
    print(f"{used / 1e9:.2f} GB of results")


def measure_growth(folder: Path, sizes: Sequence[int], sample: int, size: int, plot: Path | None) -> None:
    """Measure the milliseconds an image of the classify pass, by the number of images."""
    generate(folder / "archive", 0, sizes[0], size)
    job = write_job(folder, sample, train=False)
    found = []
    for done, images in zip((0, *sizes), sizes, strict=False):
        generate(folder / "archive", done, images, size)
        ran = submit(job, f"output={folder}/out-{images}")
        per_image = 1000 * ran.worked["classify_images"] / (images - sample)
        found.append(per_image)
        print(f"{images:,} images: {per_image:.1f} ms an image, driver {ran.peak_mib:,.0f} MiB", flush=True)
    if plot:
        plot_growth(sizes, found, plot)


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--new", type=int, default=20)
    parser.add_argument("--sample", type=int, default=20_000, help="discovery.max_regions")
    parser.add_argument("--size", type=int, default=256, help="side of an image, pixels")
    parser.add_argument("--train", action="store_true", help="the paper's training in place of Ward's clustering")
    parser.add_argument("--growth", type=int, nargs="+", help="numbers of images")
    parser.add_argument("--plot", type=Path, help="SVG of the growth")
    parser.add_argument("--folder", type=Path, help="folder for everything; default: a temporary one")
    asked = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        if asked.growth:
            measure_growth(folder, asked.growth, min(500, asked.sample), asked.size, asked.plot)
        else:
            measure_nights(folder, asked.images, asked.new, asked.sample, asked.size, asked.train)


if __name__ == "__main__":
    main()
