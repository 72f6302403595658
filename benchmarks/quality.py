"""Metrics and wall-clock time on a data set: several seeds of a job in sequence, as a Markdown table.

    python benchmarks/quality.py jobs/mtd.yaml --seeds 3 data.root=/archive output=runs/bench

The first seed runs all steps, the others only training and what follows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Run the seeds and print image- and region-level metrics with their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_intermixed_args()
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    seconds = []
    for seed in range(given.seeds):
        start = time.monotonic()
        command = [sys.executable, "-m", "ancd_ray", "submit", given.job, *given.overrides, f"train.seed={seed}"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds.append(time.monotonic() - start)
        summary = json.loads((Path(ended.stdout.strip().splitlines()[-1]) / "summary.json").read_text("utf-8"))
        for result in summary["results"]:
            figures = (result["nmi"], result["ari"], result["f1"])
            found.setdefault((result["product"], result["level"]), []).append(figures)
    print("| product | level | NMI / ARI / F1 of each seed | mean |")
    print("|---|---|---|---|")
    for (product, level), runs in found.items():
        each = " · ".join(_format_figures(run) for run in runs)
        mean = _format_figures([statistics.mean(column) for column in zip(*runs, strict=True)])
        print(f"| {product} | {level} | {each} | **{mean}** |")
    print(f"\nseconds: {', '.join(f'{s:.0f}' for s in seconds)}")


def _format_figures(figures: tuple[float, ...] | list[float]) -> str:
    return " / ".join(f"{figure:.3f}".removeprefix("0") for figure in figures)


if __name__ == "__main__":
    main()
