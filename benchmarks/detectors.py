"""Detectors over data sets: quality of maps and of the discovery after them, and seconds an image.

    python benchmarks/detectors.py benchmarks/detectors.yaml data.root=/archive output=runs/detectors \
        --detector '{name: patchcore}' --detector '{name: musc}'

Each detector is one job over all products of the job file; a table of Markdown is printed. Steps that are done are not
computed again, and their seconds are those of the run that did them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

STEPS = ("fit_detector", "calibrate", "detect")  # whose seconds are those of the detector


def main() -> None:
    """Run each detector and print a row for each product, and one for their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--detector", action="append", required=True, help="content of the section, as YAML")
    given = parser.parse_intermixed_args()
    print("| detector | product | image AUROC | pixel AUROC | AUPRO | median IoU | NMI / ARI / F1 | s an image |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for number, text in enumerate(given.detector):
        job = yaml.safe_load(Path(given.job).read_text("utf-8")) | {"detector": yaml.safe_load(text)}
        run = _submit(job, given.overrides, number)
        rows = _read(run)
        for product, figures in rows.items():
            _print(text, product, figures)
        columns = zip(*rows.values(), strict=True)
        _print(text, "**mean**", [statistics.mean(found) if found else None for found in map(_known, columns)])


def _submit(job: dict[str, Any], overrides: Sequence[str], number: int) -> Path:
    file = Path(f".detectors-{number}.yaml")
    file.write_text(yaml.safe_dump(job), "utf-8")
    try:
        command = [sys.executable, "-m", "ancd_ray", "submit", str(file), *overrides]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        file.unlink()
    return Path(ended.stdout.strip().splitlines()[-1])


def _read(run: Path) -> dict[str, list[float | None]]:
    """Read the figures of each product."""
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    rows: dict[str, list[float | None]] = {}
    for result in summary["results"]:
        if result["level"] == "image":
            product = result["product"]
            figures = {row["name"]: row["value"] for row in _read_metrics(run, product) if row["level"] != "region"}
            seconds = sum(
                step["seconds"] for step in summary["stages"] if step["product"] == product and step["name"] in STEPS
            )
            rows[product] = [
                *(figures.get(name) for name in ("detection_auroc", "auroc", "aupro", "median_iou")),
                *(result[name] for name in ("nmi", "ari", "f1")),
                seconds / result["n"],
            ]
    return rows


def _read_metrics(run: Path, product: str) -> list[dict[str, Any]]:
    return [row for row in pq.read_table(run / "metrics").to_pylist() if row["product"] == product]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _print(detector: str, product: str, figures: Sequence[float | None]) -> None:
    *maps, nmi, ari, f1, seconds = figures
    cells = [*map(_format, maps), " / ".join(map(_format, (nmi, ari, f1)))]
    print(f"| {detector} | {product} | {' | '.join(cells)} | {seconds:.3f} |", flush=True)


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
