"""What a sweep costs against one job, and against training every setting from raw images.

    python benchmarks/sweep.py jobs/sweep.yaml data.root=/archive
    python benchmarks/sweep.py --leftovers 50

First: one cold job over the products of the sweep, then the whole sweep cold in another output folder; the time of all
settings as single jobs is extrapolated from the one. Second: a sweep of so many tiny trials on generated images, in a
Ray of this process, and what is left of it: placement groups, actors, temporary files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from ancd_ray.config.load import load, resolved, validate
from ancd_ray.data.demo.generate import generate
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.sweep.planning import lay_out

GOAL, NAIVE_GOAL = 3, 100


def main() -> None:
    """Prints the figures of one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--leftovers", type=int, metavar="TRIALS")
    given = parser.parse_intermixed_args()
    if given.leftovers:
        leftovers(given.leftovers)
    elif given.job:
        compare(given.job, given.overrides)
    else:
        parser.error("name a job file, or --leftovers TRIALS")


def compare(file: Path, overrides: list[str]) -> None:
    """One cold job, then the sweep."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = load(file, overrides)
        space = lay_out(job)
        single = folder / "single.yaml"
        single.write_text(resolved(job.model_copy(update={"sweep": None})))
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
    """Seconds of a job from the command to its end, and its run folder."""
    command = [sys.executable, "-m", "ancd_ray", "submit", str(file), *overrides, f"output={output}"]
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return time.monotonic() - start, Path(ended.stdout.strip().splitlines()[-1])


def leftovers(trials: int) -> None:
    """A sweep of tiny trials, and what is left of it."""
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
            before = _files()
            start = time.monotonic()
            folder = run(validate(document), None, Display("tiny"))
            seconds = time.monotonic() - start
            time.sleep(5)  # Ray takes a moment to bury its dead
            here = ray.get_runtime_context().gcs_address  # not whichever Ray of this machine was the last to start
            groups = [group for group in list_placement_groups(here) if group.state != "REMOVED"]
            actors = list_actors(here, filters=[("state", "!=", "DEAD")])
            files = sorted(_files() - before)
            done = len(list((folder.path / "trials").glob("*.json")))
            free = ray.available_resources().get("CPU"), ray.cluster_resources().get("CPU")
        left = [str(path.relative_to(root)) for path in root.rglob("*.tmp")]
    print(f"{done} trials in {seconds:.0f} s; CPUs free {free[0]} of {free[1]}")
    print(f"left behind: {len(groups)} placement groups, {len(actors)} actors, {len(left)} drafts, {len(files)} files")
    for item in (*groups, *actors, *left, *files):
        print(" ", item)


def _files() -> set[str]:
    """Whatever lies in the folder for temporary files, Ray's own session apart: its logs go with its folder."""
    own = Path(tempfile.gettempdir())
    return {path.name for path in own.iterdir() if path.name != "ray"}


if __name__ == "__main__":
    main()
