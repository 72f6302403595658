"""Detect (precomputed maps) and regions on Ray, compared with a plain loop on two processes; scaling with the archive.

    python benchmarks/feeding.py                                  # 1,000 generated images of the size of magnetic tiles
    python benchmarks/feeding.py --growth 1000 4000 16000 --plot benchmarks/growth.svg

The start of Ray and of its first pipeline is not measured.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from mebin import realistic
from rich.console import Console
from timing import describe_machine, plot_growth

from ancd_ray.config.load import validate
from ancd_ray.engine.calls import Call, Ended
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import JobPlan, make

STEPS = ("catalog", "detect", "regions")
MEASURED = ("detect", "regions")
PROCESSES = 2
FEW = 40  # images, whose time is the overhead of an execution of Ray Data at any size


class PlainLoop(Runtime):
    """Shards in a pool of processes, without Ray."""

    def run(self, calls: Sequence[Call]) -> Iterator[Ended]:
        """Run the same calls."""
        with ProcessPoolExecutor(PROCESSES) as pool:
            for call, _ in zip(calls, pool.map(_run, calls), strict=True):
                yield Ended(call)


def _run(call: Call) -> None:
    cv2.setNumThreads(1)
    call.run()


def main() -> None:
    """Print the rates of both, or the time per image by size of the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--growth", type=int, nargs="+")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as scratch, Runtime(cpus=PROCESSES, in_process_below=0) as ray:
        root = Path(scratch)
        _run(_plan(_archive(root, FEW), root / "warm"), ray)  # starts Ray and its first pipeline
        if given.growth:
            rows = [_growth(root, n, ray, given.turns) for n in given.growth]
            print("| images | seconds | ms an image | against the first |\n|---|---|---|---|")
            for n, spent in rows:
                first = rows[0][1] / rows[0][0]
                print(f"| {n:,} | {spent:.1f} | {1e3 * spent / n:.2f} | {spent / n / first:.2f} |")
            if given.plot:
                plot_growth([n for n, _ in rows], [1e3 * spent / n for n, spent in rows], given.plot)
            return
        archive, few, times = _archive(root, given.images), _archive(root, FEW), []
        for turn in range(given.turns):
            plain = _run(_plan(archive, root / f"plain{turn}"), PlainLoop())
            under = _run(_plan(archive, root / f"ray{turn}"), ray)
            times.append((plain, under, _run(_plan(few, root / f"few{turn}"), ray)))
        plain, under, fixed = (statistics.median(column) for column in zip(*times, strict=True))
        apart = (under - fixed) * given.images / (given.images - FEW)
        print(
            f"{given.images} images: plain loop {given.images / plain:.0f} images/s, Ray {given.images / under:.0f} "
            f"images/s ({plain / under:.2f}×); without the {fixed:.1f} s that {FEW} images take in two steps, "
            f"{given.images / apart:.0f} images/s ({plain / apart:.2f}×)"
        )


def _growth(root: Path, images: int, ray: Runtime, turns: int) -> tuple[int, float]:
    archive = _archive(root, images)
    return images, statistics.median(_run(_plan(archive, root / f"grown{images}-{i}"), ray) for i in range(turns))


def _run(plan: JobPlan, runtime: Runtime) -> float:
    """Run a plan and return the seconds of detect and regions."""
    display = Display("feeding", Console(file=io.StringIO(), force_terminal=True))
    steps = [step for step in plan.steps if step.name in STEPS]
    done = run_steps(steps, plan.root, runtime, display, plan.job.resources.max_quarantined)
    return sum(run.seconds for run in done.values() if run.name in MEASURED)


def _plan(archive: Path, output: Path) -> JobPlan:
    product = {"name": "p", "layout": "folder", "path": "images", "maps": "maps"}
    document = {
        "name": "feeding",
        "data": {"root": str(archive), "products": [product]},
        "detector": {"name": "precomputed", "value_range": [0, 255]},
        "classes": {"novel": 3},
        "output": str(output),
    }
    return make(validate(document))


def _archive(root: Path, images: int) -> Path:
    folder = root / f"archive{images}"
    with ProcessPoolExecutor(PROCESSES) as pool:
        list(pool.map(_generate, [(folder, i) for i in range(images)], chunksize=100))
    return folder


def _generate(what: tuple[Path, int]) -> None:
    """Generate a gray tile of about 290 x 370 pixels, and a map of 256²."""
    folder, number = what
    rng = np.random.default_rng(number)
    height, width = int(rng.integers(230, 400)), int(rng.integers(180, 330))
    grey = cv2.resize(rng.integers(60, 200, (height // 4, width // 4)).astype(np.uint8), (width, height))
    for kind, suffix, array in (("images", "jpg", grey), ("maps", "png", realistic(256, number)[0])):
        path = folder / kind / f"{number % 100:02d}" / f"{number:06d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(f".{suffix}", array)[1].tobytes())


if __name__ == "__main__":
    main()
