"""Detectors over data sets: quality of maps and of the discovery after them, and seconds an image.

    python benchmarks/detectors.py benchmarks/detectors.yaml data.root=/archive output=runs/detectors \
        --detector '{name: patchcore}' --detector '{name: musc}'
    python benchmarks/detectors.py … --detector '{name: patchcore}' --maps-only --pollute 0.05 --pollute 0.2

Each detector is one job over all products of the job file; a table of Markdown is printed. Steps that are done are not
computed again, and their seconds are those of the run that did them. With `--maps-only`, the job ends with the maps.

`--pollute` makes that share of the normal images defects, a seeded sample of the test images. All rows of the table,
also the one without defects among the normal images, are of the test images that are left at the largest share.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from ancd_ray.config.load import load
from ancd_ray.data.layouts import ProductConfig, list_product
from ancd_ray.data.roles import is_defect
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make
from ancd_ray.method.metrics import auroc

STEPS = ("fit_detector", "calibrate", "detect")  # whose seconds are those of the detector
UP_TO_MAPS = ("catalog", "find_roi", *STEPS, "score_maps")
Row = list[float | None]  # of the table


def main() -> None:
    """Run each detector and print a row for each product, and one for their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--detector", action="append", required=True, help="content of the section, as YAML")
    parser.add_argument("--maps-only", action="store_true", help="no discovery")
    parser.add_argument("--pollute", action="append", type=float, default=[], metavar="SHARE")
    given = parser.parse_intermixed_args()
    job = yaml.safe_load(Path(given.job).read_text("utf-8"))
    print("| detector | product | image AUROC | pixel AUROC | AUPRO | median IoU | NMI / ARI / F1 | s an image |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.yaml"
        for share, data in _pollute(Path(given.job), given.overrides, given.pollute, Path(folder)):
            for text in given.detector:
                file.write_text(yaml.safe_dump(job | data | {"detector": yaml.safe_load(text)}), "utf-8")
                rows = (_make_maps if given.maps_only else _discover)(file, given.overrides)
                name = f"{text}, {share:.0%} defects" if given.pollute else text
                for product, figures in rows.items():
                    _print(name, product, figures)
                columns = zip(*rows.values(), strict=True)
                _print(name, "**mean**", [statistics.mean(found) if found else None for found in map(_known, columns)])


def _pollute(
    path: Path, overrides: Sequence[str], shares: Sequence[float], folder: Path
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield the shares, 0 before them, and `data` of the job with such a share of defects among normal images."""
    if not shares:
        yield 0.0, {}
        return
    data = load(path, overrides).data
    for share in (0.0, *shares):
        products = [_pollute_product(each, data.root, share, max(shares), folder) for each in data.products]
        yield share, {"data": {"root": data.root, "products": products}}


def _pollute_product(product: ProductConfig, root: str, share: float, most: float, folder: Path) -> dict[str, Any]:
    """Write a list of the images of a product; returns its keys in a job file."""
    images = list(list_product(product, root).images)
    n = sum(image.role == "normal" for image in images)
    defects = [image.path for image in images if image.role == "query" and is_defect(image.label)]
    shuffled = np.random.default_rng(0).permutation(defects).tolist()
    moved, left_out = (set(shuffled[: round(n * each / (1 - each))]) for each in (share, most))
    file = folder / f"{product.name}-{share}.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["uri", "label", "mask", "role"])
        for image in images:
            if image.path in moved:
                rows.writerow([image.uri, "", "", "normal"])
            elif image.path not in left_out:
                rows.writerow([image.uri, image.label, "".join(image.mask_uris[:1]), image.role])
    return {
        "name": product.name,
        "layout": "manifest",
        "path": str(file),
        "mask_threshold": product.mask_threshold,
    }


def _make_maps(file: Path, overrides: Sequence[str]) -> dict[str, Row]:
    """Run the stages up to the maps; returns the figures of each product."""
    job = load(file, list(overrides))
    plan = make(job)
    display = Display("detectors")
    steps = [step for step in plan.steps if step.name in UP_TO_MAPS]
    with display.running(), Runtime() as runtime:
        list(run_steps(steps, plan.root, runtime, display, job.resources.max_quarantined).values())
    rows = {}
    for product in job.data.products:
        done = {step.name: step.folder(plan.root) for step in steps if step.product == product.name}
        found = {name: output for name, folder in done.items() if (output := Output.find(folder))}
        of_maps = found["score_maps"].values
        images, maps = found["catalog"].table("images").to_pydict(), found["detect"].table("maps").to_pydict()
        labels = dict(zip(images["image_id"], images["label"], strict=True))
        is_anomalous = np.array([is_defect(labels[image_id]) for image_id in maps["image_id"]])
        of_images = auroc(is_anomalous, np.array(maps["score"]))
        rows[product.name] = [of_images, of_maps["pixel_auroc"], of_maps["aupro"], *[None] * 5]
    return rows


def _discover(file: Path, overrides: Sequence[str]) -> dict[str, Row]:
    """Run a job; returns the figures of each product."""
    command = [sys.executable, "-m", "ancd_ray", "submit", str(file), *overrides]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return _read(Path(ended.stdout.strip().splitlines()[-1]))


def _read(run: Path) -> dict[str, Row]:
    """Read the figures of each product."""
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    rows: dict[str, Row] = {}
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


def _print(detector: str, product: str, figures: Row) -> None:
    *maps, nmi, ari, f1, seconds = figures
    cells = [*map(_format, maps), " / ".join(map(_format, (nmi, ari, f1)))]
    print(f"| {detector} | {product} | {' | '.join(cells)} | {_format(seconds)} |", flush=True)


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
