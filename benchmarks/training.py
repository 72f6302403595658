"""Trainings with switches over the data sets of `quality.py`, each by itself and joined with `spectral`.

    python benchmarks/training.py CACHE --root DATA              # whole sets: what differs from the paper's training
    python benchmarks/training.py CACHE --root DATA --samples 0 1 2 --rows "spectral" "started, 4 heads"

Heads are trained on the main regions with drawn masks, into as many classes as are labeled, in this process. CACHE is
that of `quality.py`; it gets the views, the predictions of each training, so that only new rows are trained, and
`training.md`. Each figure is the mean of NMI, ARI and F1 of images, over the samples that are asked for; 0 is the whole
set.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from quality import JOB
from quality_sets import Set, encode_sets, read_samples, read_table
from training_loop import Problem, Switches, Trained, train
from training_methods import ROWS
from training_views import ViewSet, read_views

from ancd_ray.backbones.loaded import load_cached
from ancd_ray.config.load import load
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make
from ancd_ray.method.metrics import cluster_scores

BASE = "steel"


def main() -> None:
    """Train what has not been trained, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--root", required=True, help="folder of the data sets, and of the base set steel_sd900")
    parser.add_argument("--sets", nargs="*", help="some of the sets")
    parser.add_argument("--rows", nargs="*", help="some of the rows")
    parser.add_argument("--samples", nargs="*", type=int, default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    output, start = asked.cache / "masks", time.monotonic()
    sets = encode_sets(JOB, asked.root, output, asked.sets, maps=False, settings=())
    names, base = [each.name for each in sets], None
    rows = [row for row in ROWS if not asked.rows or row in asked.rows]
    if any(switches and switches.base for switches, _ in (ROWS[row] for row in rows)):
        base = encode_base(asked.root, output)
    found = {}
    for each in sets:
        for number, sample in enumerate(read_samples(each, maps=False)):
            if number not in asked.samples:
                continue
            problem = Problem(sample)
            for row in rows:
                switches, decide = ROWS[row]
                trained = open_trained(asked.cache, each, number, problem, switches, base) if switches else None
                scores = cluster_scores(problem.label_I, decide(problem, trained))
                found[row, each.name, number] = (scores.nmi + scores.ari + scores.f1) / 3
    lines = [f"| training | mean | {' | '.join(names)} |", f"|---|{'---|' * (1 + len(names))}"]
    for row in rows:
        means = [float(np.mean([found[row, name, number] for number in asked.samples])) for name in names]
        lines.append(f"| {row} | {' | '.join(_short(mean) for mean in (float(np.mean(means)), *means))} |")
    text = "\n".join(lines)
    print(f"{text}\n\n{time.monotonic() - start:.0f} s")
    (asked.cache / "training.md").write_text(text + "\n", "utf-8")


def encode_base(root: str, output: Path) -> Table:
    """Run the stages up to the regions of the base set, and return these."""
    base = f"data.base={{name: {BASE}, layout: mvtec, path: steel_sd900}}"
    overrides = [
        f"data.root={Path(root).absolute()}",
        f"output={output.absolute()}",
        "discovery.method=anomalyncd",
        base,
    ]
    job = load(JOB, overrides)
    plan = make(job)
    steps = [step for step in plan.steps if step.product == BASE and step.name in ("catalog", "detect", "regions")]
    display = Display("training")
    with display.running(), Runtime() as runtime:
        done = run_steps(steps, plan.root, runtime, display, job.resources.max_quarantined)
    return Table(next(run.output for run in done.values() if run.name == "regions"), "regions")


def open_trained(
    cache: Path, found: Set, number: int, problem: Problem, switches: Switches, base_regions: Table | None
) -> Trained:
    """Read the result of a training, or train."""
    path = cache / "trained" / switches.name / f"{found.name}-{number}.npz"
    if not path.exists():
        views = read_views(read_table(found, "regions"), cache / "views", found.name, switches.tokens)
        convert = problem.whiten if switches.whiten else None
        novel, base = ViewSet(views, problem.region_ids, convert), None
        if switches.base:
            assert base_regions
            base = ViewSet(
                read_views(base_regions, cache / "views", BASE, switches.tokens, is_base=True), None, convert
            )
        trained = train(problem, novel, base, load_cached(BackboneConfig()), switches)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **trained._asdict())
    with np.load(path) as arrays:
        return Trained(**{field: arrays[field] for field in Trained._fields})


def _short(figure: float) -> str:
    return f"{figure:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
