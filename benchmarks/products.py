"""A job with many small products, compared with a job with one product of as many images.

    python benchmarks/products.py                                  # 200 products of 50 images, and one of 10,000
    python benchmarks/products.py --products 40 --images 50

Images and anomaly maps are generated. Every step runs, with `discovery.method: linked`; report and start of Ray are not
measured. The share of the cores is CPU time of driver and workers in wall-clock time, of which start-up is no part.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil
from rich.console import Console
from timing import describe_machine

from ancd_ray.config.load import validate
from ancd_ray.engine.executor import StepRun, run_steps
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make

SIDE = 256
FEW = 80  # images of the job that starts Ray and loads the model


def main() -> None:
    """Print seconds and share of the cores of both jobs, and the ratio of their times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--images", type=int, default=50, help="of a product")
    parser.add_argument("--cpus", type=int, default=os.cpu_count())
    parser.add_argument("--steps", action="store_true", help="print seconds by step")
    given = parser.parse_args()
    n = given.products * given.images
    print(describe_machine())
    with tempfile.TemporaryDirectory() as scratch, Runtime(cpus=given.cpus) as runtime:
        root = Path(scratch)
        many = [f"p{i:04d}" for i in range(given.products)]
        with ProcessPoolExecutor() as pool:
            what = [(root, name, i) for name in many for i in range(given.images)]
            list(pool.map(_generate, [*what, *((root, "few", i) for i in range(FEW))], chunksize=100))
        for kind in ("images", "maps"):  # one product of the same files
            for name in many:
                for file in (root / name / kind).iterdir():
                    whole = root / "whole" / kind / f"{name}-{file.name}"
                    whole.parent.mkdir(parents=True, exist_ok=True)
                    whole.hardlink_to(file)
        _run(root, ["few"], runtime)
        seconds = []
        for names in (["whole"], many):
            spent, share, done = _run(root, names, runtime)
            seconds.append(spent)
            print(f"{len(names)} × {n // len(names)} images: {spent:.0f} s, {share / given.cpus:.0%} of the cores busy")
            if given.steps:
                for step in dict.fromkeys(run.name for run in done):
                    print(f"  {step}: {sum(run.seconds for run in done if run.name == step):.1f} s")
        print(f"{seconds[1] / seconds[0]:.2f} times as long")


def _run(root: Path, names: list[str], runtime: Runtime) -> tuple[float, float, list[StepRun]]:
    """Run a job over products; returns seconds, the mean number of busy cores, and its steps."""
    products = [{"name": name, "layout": "folder", "path": f"{name}/images", "maps": f"{name}/maps"} for name in names]
    job = validate(
        {
            "name": "products",
            "data": {"root": str(root), "products": products},
            "detector": {"name": "precomputed", "value_range": [0, 255]},
            "discovery": {"method": "linked"},
            "classes": {"novel": 4},
            "output": str(root / f"out-{names[0]}"),
        }
    )
    plan = make(job)
    display = Display("products", Console(file=io.StringIO(), force_terminal=True))
    busy, start = _measure_cpu(), time.monotonic()
    done = run_steps(plan.steps, plan.root, runtime, display, job.resources.max_quarantined)
    spent = time.monotonic() - start
    return spent, (_measure_cpu() - busy) / spent, list(done.values())


def _measure_cpu() -> float:
    """Return the CPU seconds of this process and of all below it so far."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(each.user + each.system for each in times) + sum(
        each.children_user + each.children_system for each in times
    )


def _generate(what: tuple[Path, str, int]) -> None:
    """Generate a noisy image with one of three shapes or none, and its map."""
    root, name, number = what
    rng = np.random.default_rng([number, *name.encode()])
    image = cv2.resize(rng.integers(90, 160, (64, 64), np.uint8), (SIDE, SIDE))
    values = rng.integers(0, 30, (SIDE // 2, SIDE // 2)).astype(np.uint8)
    x, y, size = (int(v) for v in rng.integers((60, 60, 14), (196, 196, 40)))
    kind, strength = number % 4, int(rng.integers(150, 255))
    for array, scale, value in ((image, 1, (0, 40, 210, 250)[kind]), (values, 2, strength)):
        at, extent = (x // scale, y // scale), size // scale
        if kind == 1:
            cv2.circle(array, at, extent, value, -1)
        elif kind == 2:
            cv2.rectangle(array, at, (at[0] + extent, at[1] + extent // 3), value, -1)
        elif kind == 3:
            cv2.line(array, at, (at[0] + extent, at[1] + extent), value, max(1, 4 // scale))
    for folder, suffix, array in (("images", "jpg", image), ("maps", "png", values)):
        path = root / name / folder / f"{number:06d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(f".{suffix}", array)[1].tobytes())


if __name__ == "__main__":
    main()
