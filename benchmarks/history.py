"""Start of `plan`, and of what `submit` does before its first step, over an output folder with a long history.

    python benchmarks/history.py                               # 200 products, 90 nights: 216,000 steps
    python benchmarks/history.py --products 20 --nights 10

The history is generated: manifests as jobs write them, those of the last night with files. The changed job has another
`detector.image_size`, so that all steps but the catalogs run again, and each wants to know why. "Searched" is the same
without the pointers to the newest results, as in an output folder of an earlier version: all manifests are read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml
from timing import describe_machine

from ancd_ray.config.load import load
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.stage import Step, get_roles
from ancd_ray.engine.status import list_unfinished
from ancd_ray.engine.versions import read_versions
from ancd_ray.jobs.plan import make

CHANGE = "detector.image_size=200"
PART = bytes(10_000)


def main() -> None:
    """Print wall and CPU seconds of each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--nights", type=int, default=90)
    given = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as scratch:
        file = _write_job(Path(scratch), given.products)
        steps = _write_history(file, given.nights)
        print(f"{given.products} products x {given.nights} nights: {steps} steps a night")
        print("| case | wall, s | CPU, s |\n|---|---|---|")
        _print("plan, nothing changed", lambda: _plan(file))
        _print("plan, changed", lambda: _plan(file, CHANGE))
        _print("submit before its first step, changed", lambda: _start(file, CHANGE))
        shutil.rmtree(Path(scratch) / "out" / "newest")
        _print("plan, changed, searched", lambda: _plan(file, CHANGE))


def _print(case: str, call: Callable[[], None]) -> None:
    before, start = _cpu_seconds(), time.perf_counter()
    call()
    print(f"| {case} | {time.perf_counter() - start:.1f} | {_cpu_seconds() - before:.1f} |", flush=True)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _plan(file: Path, *overrides: str) -> None:
    command = [sys.executable, "-m", "ancd_ray", "plan", str(file), *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _start(file: Path, *overrides: str) -> None:
    plan = make(load(file, overrides))
    assert list_unfinished(plan.steps, plan.root)


def _write_job(root: Path, products: int) -> Path:
    """Write tiny images of all products, and a job file over them."""
    rng = np.random.default_rng(0)
    for product in range(products):
        for kind, count in (("train/good", 3), ("test/good", 2), ("test/crack", 4)):
            folder = root / "archive" / f"p{product:03d}" / kind
            folder.mkdir(parents=True)
            for number in range(count):
                cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (16, 16), np.uint8))
    document = {
        "name": "history",
        "data": {
            "root": str(root / "archive"),
            "products": [{"name": f"p{i:03d}", "layout": "mvtec", "path": f"p{i:03d}"} for i in range(products)],
        },
        "detector": {"name": "patchcore"},
        "output": str(root / "out"),
    }
    file = root / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def _write_history(file: Path, nights: int) -> int:
    """Write the manifests of all nights, and the files of the last one; returns the number of steps of a night."""
    plan = make(load(file, ()))
    root = plan.root.path
    for step in plan.steps:
        manifest = _make_manifest(step)
        for night in range(nights - 1):
            fingerprint = hashlib.sha256(f"{step.fingerprint}{night}".encode()).hexdigest()[:16]
            folder = root / "steps" / step.name / f"{step.product}-{fingerprint}"
            folder.mkdir(parents=True)
            created_at = f"2026-{1 + night // 28:02d}-{1 + night % 28:02d}T02:00:00+00:00"
            document = {**manifest, "fingerprint": fingerprint, "created_at": created_at}
            (folder / "manifest.json").write_text(json.dumps(document, indent=1, sort_keys=True))
        folder = step.folder(plan.root).path
        for name in manifest["sizes"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(PART)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
        newest = root / "newest" / step.name / f"{step.product}.json"
        newest.parent.mkdir(parents=True, exist_ok=True)
        newest.write_text(json.dumps({key: manifest[key] for key in ("fingerprint", "version", "config", "inputs")}))
    os.sync()  # or else the writing would be measured with the reading
    return len(plan.steps)


def _make_manifest(step: Step) -> dict[str, object]:
    kinds = get_roles(step.stage.Out)
    tables: dict[str, Sequence[dict[str, object]]] = {
        role: [{"file": f"{role}/part-00000.parquet", "rows": 9, "sha256": "0" * 64}]
        for role in step.stage.makes
        if kinds[role] is Table
    }
    return {
        "step": step.name,
        "product": step.product,
        "fingerprint": step.fingerprint,
        "version": step.stage.version,
        "config": step.stage.hashed,
        "inputs": {
            role: {"step": ref.step.name, "fingerprint": ref.step.fingerprint} for role, ref in step.inputs.items()
        },
        "outputs": {role: kinds[role].kind for role in step.stage.makes},
        "tables": tables,
        "files": {},
        "sizes": {f"{role}/part-00000.parquet": len(PART) for role in tables},
        "values": {"losses": {"total": [0.5] * 50}} if step.name == "train" else {},
        "seconds": 1.0,
        "created_at": "2026-12-01T02:00:00+00:00",
        "versions": read_versions(),
    }


if __name__ == "__main__":
    main()
