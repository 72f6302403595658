"""Cost of a sweep, compared with one job and with a cold job for every setting.

    python benchmarks/sweep.py jobs/sweep.yaml data.root=/archive
    python benchmarks/sweep.py --leftovers 50

First form: one cold job over the products of the sweep, then the whole sweep in another output folder; the time of all
settings as single jobs is extrapolated. Second form: a sweep of this many tiny trials on generated images, and the
placement groups, actors and temporary files that remain after it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from ancd_ray.config.load import dump_resolved, load, validate
from ancd_ray.data.demo.generate import generate
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.sweep.planning import build_search_space

GOAL, NAIVE_GOAL = 3, 100


def main() -> None:
    """Run one of the two forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--leftovers", type=int, metavar="TRIALS")
    given = parser.parse_intermixed_args()
    if given.leftovers:
        measure_leftovers(given.leftovers)
    elif given.job:
        compare(given.job, given.overrides)
    else:
        parser.error("name a job file, or --leftovers TRIALS")


def compare(file: Path, overrides: list[str]) -> None:
    """Time one cold job, then the sweep."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = load(file, overrides)
        space = build_search_space(job)
        single = folder / "single.yaml"
        single.write_text(dump_resolved(job.model_copy(update={"sweep": None})))
        one, _ = _submit(single, folder / "one")
        whole, run = _submit(file, folder / "whole", *overrides)
        settings = sum(len(space.merges[trial.plan.name]) for trial in space.trials)
        products = len(space.plan.products)
        naive = one * settings / products
        summary = yaml.safe_load((run / "summary.json").read_text("utf-8"))
        print(f"one cold job over {products} products: {one:.0f} s")
        print(f"sweep of {len(space.trials)} trials, {settings} settings: {whole:.0f} s")
        print(f"  = {whole / one:.2f} jobs (goal: at most {GOAL})")
        print(f"naive, {settings // products} cold jobs: {naive:.0f} s, {naive / whole:.0f} times as long", end=" ")
        print(f"(goal: at least {NAIVE_GOAL})")
        metric = summary["metric"]
        for product in (one for one in summary["products"] if one["best"]):
            figure, gained = product["figures"][metric], product["distance"]
            print(f"{product['product']}: best {product['best']}, {metric} {figure:.3f}, {gained:+.3f} over defaults")


def _submit(file: Path, output: Path, *overrides: str) -> tuple[float, Path]:
    """Run a job; returns its wall-clock seconds and its run folder."""
    command = [sys.executable, "-m", "ancd_ray", "submit", str(file), *overrides, f"output={output}"]
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return time.monotonic() - start, Path(ended.stdout.strip().splitlines()[-1])


def measure_leftovers(trials: int) -> None:
    """Run a sweep of tiny trials, and print what remains of it."""
    import ray
    from ray.util.state import list_actors, list_placement_groups

    from ancd_ray.engine.runtime import Runtime
    from ancd_ray.jobs.sweep.run import run

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        generate(root / "data", images=25, normals=1, base=6, seed=0, size=64)
        tile = {"name": "tile", "layout": "mvtec", "path": "tile"}
        document = {
            "name": "tiny",
            "data": {"root": str(root / "data"), "products": [tile]},
            "detector": {"name": "ground_truth"},
            "train": {"epochs": 1, "batch_size": 16, "views": {"bank": 2}},
            "sweep": {"parameters": {"train.seed": {"grid": list(range(trials))}}},
            "output": str(root / "out"),
        }
        with Runtime(dashboard=True) as runtime:
            runtime.start()
            before = _list_files()
            start = time.monotonic()
            folder = run(validate(document), None, Display("tiny"))
            seconds = time.monotonic() - start
            time.sleep(5)  # Ray cleans up processes that ended with a delay
            here = ray.get_runtime_context().gcs_address  # of this Ray, not of the last one started on this machine
            groups = [group for group in list_placement_groups(here) if group.state != "REMOVED"]
            actors = list_actors(here, filters=[("state", "!=", "DEAD")])
            files = sorted(_list_files() - before)
            done = len(list((folder.path / "trials").glob("*.json")))
            free = ray.available_resources().get("CPU"), ray.cluster_resources().get("CPU")
        left = [str(path.relative_to(root)) for path in root.rglob("*.tmp")]
    print(f"{done} trials in {seconds:.0f} s; CPUs free {free[0]} of {free[1]}")
    print(f"left behind: {len(groups)} placement groups, {len(actors)} actors, {len(left)} drafts, {len(files)} files")
    for item in (*groups, *actors, *left, *files):
        print(" ", item)


def _list_files() -> set[str]:
    """List the entries of the temporary folder, without the session folder of Ray."""
    own = Path(tempfile.gettempdir())
    return {path.name for path in own.iterdir() if path.name != "ray"}


if __name__ == "__main__":
    main()
