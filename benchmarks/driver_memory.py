"""Peak memory of the driver while catalog, detect (precomputed maps) and regions process many images.

    python benchmarks/driver_memory.py --images 20000

The images and their maps are generated first, in a temporary folder.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from ancd_ray.config.load import validate
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make

SIDE = 256
STEPS = ("catalog", "detect", "regions")


def main() -> None:
    """Print images, seconds, peak RSS, and the size of the largest part file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        with ProcessPoolExecutor() as pool:
            list(pool.map(_generate, [(root, i) for i in range(given.images)], chunksize=500))
        job = validate(
            {
                "name": "memory",
                "data": {
                    "root": str(root),
                    "products": [{"name": "p", "layout": "folder", "path": "images", "maps": "maps"}],
                },
                "detector": {"name": "precomputed"},
                "classes": {"novel": 3},
                "output": str(root / "out"),
            }
        )
        start = time.monotonic()
        plan = make(job)
        steps = [step for step in plan.steps if step.name in STEPS]
        display = Display("driver memory")
        with display.running(), Runtime() as runtime:
            runs = list(run_steps(steps, plan.root, runtime, display, job.resources.max_quarantined).values())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        regions = runs[-1].output.rows("regions")
        files = max(file.stat().st_size for file in root.glob("out/steps/*/*/*/*.parquet")) / 2**20
        seconds = time.monotonic() - start
        print(
            f"{given.images} images, {regions} regions, {seconds:.0f} s, peak RSS of the driver {peak:.0f} MiB, ",
            end="",
        )
        print(f"largest part file {files:.0f} MiB")


def _generate(what: tuple[Path, int]) -> None:
    """Generate a noisy image with a disc, and its map."""
    root, number = what
    rng = np.random.default_rng(number)
    image = cv2.resize(rng.integers(90, 160, (64, 64), np.uint8), (SIDE, SIDE))
    values = rng.integers(0, 30, (SIDE // 2, SIDE // 2)).astype(np.uint8)
    x, y, radius = (int(v) for v in rng.integers((40, 40, 14), (216, 216, 30)))
    cv2.circle(image, (x, y), radius, 240, -1)
    cv2.circle(values, (x // 2, y // 2), radius // 2, int(rng.integers(120, 255)), -1)
    for folder, suffix, array in (("images", "jpg", image), ("maps", "png", values)):
        path = root / folder / f"{number % 100:02d}" / f"{number:06d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(f".{suffix}", array)[1].tobytes())


if __name__ == "__main__":
    main()
