"""CPU seconds and peak memory of the steps after encoding, by the number of regions.

    python benchmarks/linear.py --regions 1000 10000 100000

Generated features of the width of `lite`: eight classes of normal spread, two of which are rare, and images of which
half are normal. Each step runs in a process of its own, as the driver runs it: it reads the tables of the steps before
and writes its result. Classification runs in the driver here, part by part, instead of on workers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.outputs import Output, Part

WIDTHS = (112, 320)
CLASSES, RARE = 8, (20, 60)
PART = 4096
STEPS = ("ward", "linked", "classify", "count_classes", "evaluate")


def main() -> None:
    """Print a row for each number of regions and step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--steps", nargs="+", default=STEPS, choices=STEPS)
    given = parser.parse_args()
    print("| regions | step | CPU s | seconds | peak RSS, MiB | rare classes found |\n|---|---|---|---|---|---|")
    spawn = multiprocessing.get_context("spawn")
    for n_regions in given.regions:
        with tempfile.TemporaryDirectory() as scratch, spawn.Pool(1, maxtasksperchild=1) as pool:
            pool.apply(_generate, (scratch, n_regions))
            for step in given.steps:
                cpu, seconds, peak, note = pool.apply(_measure, (scratch, step))
                print(f"| {n_regions} | {step} | {cpu:.1f} | {seconds:.1f} | {peak:.0f} | {note} |", flush=True)


def _generate(scratch: str, n_regions: int) -> None:
    """Write the tables `features` and `maps`, of one region an image."""
    rng = np.random.default_rng(0)
    centres = 0.6 * rng.normal(size=(CLASSES, sum(WIDTHS)))
    directions = 0.1 * rng.normal(size=(CLASSES, 12, sum(WIDTHS)))
    cls = rng.integers(CLASSES - len(RARE), size=n_regions)
    for k, (size, rows) in enumerate(
        zip(RARE, np.split(rng.permutation(n_regions)[: sum(RARE)], [RARE[0]]), strict=True)
    ):
        cls[rows[:size]] = CLASSES - len(RARE) + k
    is_normal = (rng.random(n_regions) < 0.5) & (cls < CLASSES - len(RARE))
    names, label = [*(f"class {k}" for k in range(CLASSES)), "good"], np.where(is_normal, CLASSES, cls)
    score = np.exp(np.where(is_normal, rng.normal(0, 0.1, n_regions), rng.normal(2, 0.3, n_regions)))
    for part in range(-(-n_regions // PART)):
        rows = np.arange(part * PART, min((part + 1) * PART, n_regions))
        spread = rng.normal(size=(len(rows), 1, 12)) @ directions[cls[rows]]
        values = centres[cls[rows]] + spread[:, 0] + 0.6 * rng.normal(size=(len(rows), sum(WIDTHS)))
        ids = [f"{row:08x}" for row in rows]
        copied = {"image_id": ids, "product": ["p"] * len(rows), "label": [names[k] for k in label[rows]]}
        features = {
            **copied,
            "region_id": [f"{i}-0" for i in ids],
            "role": ["query"] * len(rows),
            "area": np.full(len(rows), 100),
            "score": np.ones(len(rows), np.float32),
            "shape": _lists(rng.normal(size=(len(rows), 5))),
            **dict.fromkeys(("masked", "centred", "top"), _lists(values)),
        }
        _write(scratch, "features", part, features)
        _write(scratch, "maps", part, {**copied, "score": score[rows].astype(np.float32)})


def _lists(values: Any) -> pa.Array:
    """Convert an array (N, K) to a column of lists."""
    flat = pa.array(np.asarray(values, np.float32).ravel())
    return pa.ListArray.from_arrays(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32), flat)


def _write(scratch: str, role: str, part: int, columns: dict[str, Any]) -> None:
    schema = pa.schema([field for field in SCHEMAS[role] if field.name in columns])
    table = pa.table({field.name: pa.array(columns[field.name]) for field in schema}).cast(schema)
    Folder(scratch).write_table(f"{role}/part-{part:05d}.parquet", table)


def _find(scratch: str, role: str, **values: Any) -> Table:
    """Return a table by what lies in its folder."""
    import pyarrow.parquet as pq

    files = sorted((Path(scratch) / role).glob("*.parquet"))
    parts = [vars(Part(f"{role}/{file.name}", pq.read_metadata(file).num_rows, "")) for file in files]
    manifest = {"tables": {role: parts}, "values": {"widths": WIDTHS, "backbone_digest": "", **values}, "files": {}}
    return Table(Output(Folder(scratch), manifest), role)


def _measure(scratch: str, step: str) -> tuple[float, float, float, str]:
    """Run a step; returns its CPU seconds, seconds, the peak RSS of the process in MiB, and what it found."""
    run: Callable[[str], str] = {"classify": _classify, "count_classes": _count, "evaluate": _evaluate}.get(
        step, lambda folder: _cluster(folder, step)
    )
    cpu, start = time.process_time(), time.monotonic()
    note = run(scratch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.process_time() - cpu, time.monotonic() - start, peak, note


def _context(scratch: str) -> Any:
    return SimpleNamespace(folder=Folder(scratch), product="p", progress=SimpleNamespace(note=lambda _: None))


def _cluster(scratch: str, method: str) -> str:
    """Cluster with a normal class; `ward` on all regions, `linked` on those that the scores do not say normal."""
    from ancd_ray.stages.cluster import Cluster

    stage = Cluster(method, Classes((), CLASSES + (method == "linked"), True), seed=0)
    maps = _find(scratch, "maps") if stage.looks_at_scores else None
    stage.run(_context(scratch), Cluster.In(_find(scratch, "features"), maps=maps))
    return ""


def _classify(scratch: str) -> str:
    """Classify by the classifier that was made last; tells how many of each rare class are in a class of their own."""
    from ancd_ray.discovery.classifiers import load_classifier
    from ancd_ray.stages.classify import classify_regions

    features, maps = _find(scratch, "features"), _find(scratch, "maps")
    classifier = load_classifier(Folder(scratch).read)
    labels, found = [], []
    for index, (part, scored) in enumerate(zip(features.parts, maps.parts, strict=True)):
        tables = {"features": features.read_part(part), "maps": maps.read_part(scored)}
        rows = classify_regions(classifier, None, tables)
        labels += [row["label"] for row in rows]
        found += [row["cls"] for row in rows]
        _write(scratch, "region_predictions", index, _columns(rows, "region_predictions"))
        images = [{**row, "uri": "", "is_normal": row["cls"] == 0, "n_regions": 1} for row in rows]
        _write(scratch, "image_predictions", index, _columns(images, "image_predictions"))
    names, classes = np.array(labels), np.array(found)
    rare = [names == f"class {CLASSES - len(RARE) + k}" for k in range(len(RARE))]
    overlap = [
        max(2 * (one & (classes == k)).sum() / (one.sum() + (classes == k).sum()) for k in set(found)) for one in rare
    ]
    return "F1 " + " · ".join(f"{value:.2f}" for value in overlap)


def _columns(rows: list[dict[str, Any]], role: str) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in SCHEMAS[role].names}


def _count(scratch: str) -> str:
    from ancd_ray.stages.count_classes import CountClasses

    result = CountClasses(max_classes=12, has_normal=False).run(
        _context(scratch), CountClasses.In(_find(scratch, "features"))
    )
    return f"{result.values['n_classes']} classes"


def _evaluate(scratch: str) -> str:
    from ancd_ray.stages.evaluate import Evaluate

    inputs = {role: _find(scratch, role) for role in ("maps", "features", "region_predictions", "image_predictions")}
    result = Evaluate(has_normal=True).run(_context(scratch), Evaluate.In(**inputs))
    return f"ARI {result.values['region']['ari']:.2f}"


if __name__ == "__main__":
    main()
