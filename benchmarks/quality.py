"""Quality of methods over data sets and subsamples of them, from features that are computed once.

    python benchmarks/quality.py CACHE --root DATA                # drawn masks
    python benchmarks/quality.py CACHE --root DATA --maps         # anomaly maps, and normal images among the others
    python benchmarks/quality.py CACHE --root DATA --ablation     # `spectral` without one of its parts, or with another

Each method clusters the main regions of a set into as many classes as are labeled; the class of an image is that of its
main region. NMI, ARI and F1 are of images, each the mean over the whole set and four samples of 80 % of its images.
CACHE gets the features, `quality.csv` with all figures and `quality.md` with the tables that are printed.

The rule by which defaults are chosen: the best mean over all sets, of methods that on no set are more than .01 below
Ward's algorithm on centred features. As a check, each set gets the method that the rule chooses on the others.
"""

from __future__ import annotations

import argparse
import csv
import functools
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_methods import ABLATION, BASELINE, METHODS, Sample

from ancd_ray.config.load import load
from ancd_ray.data.store import Folder
from ancd_ray.discovery.cluster_regions import ImageScores
from ancd_ray.discovery.features import FEATURES, VIEW_FEATURES
from ancd_ray.discovery.features.region_features import RegionFeatures, StoredFeatures
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make
from ancd_ray.method.metrics import cluster_scores

JOB = Path(__file__).with_suffix(".yaml")
STEPS = ("catalog", "fit_detector", "detect", "regions", "encode")
SAMPLES, SHARE = 4, 0.8
ALLOWED = 0.01  # a default is at most that much worse than the baseline on any set
Figures = dict[tuple[str, str, int], tuple[float, float, float]]  # method, set, sample → NMI, ARI, F1


def main() -> None:
    """Compute what is missing of the features, measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--root", required=True, help="folder of the data sets")
    parser.add_argument("--job", type=Path, default=JOB)
    parser.add_argument("--maps", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--sets", nargs="*", help="some of the sets")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    output = asked.cache / ("maps" if asked.maps else "masks")
    names = encode_sets(asked.job, asked.root, output, asked.sets, asked.maps)
    methods = list(ABLATION if asked.ablation else METHODS)
    start, found = time.monotonic(), {}
    with ProcessPoolExecutor(asked.workers, multiprocessing.get_context("spawn")) as pool:  # libraries have threads
        for figures in pool.map(functools.partial(measure, output, asked.ablation, asked.maps), names):
            found |= figures
    text = "\n\n".join(write_tables(found, methods, names))
    print(f"{text}\n\n{time.monotonic() - start:.0f} s")
    kind = "_ablation" * asked.ablation + "_maps" * asked.maps
    (asked.cache / f"quality{kind}.md").write_text(text + "\n", "utf-8")
    with (asked.cache / f"quality{kind}.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["method", "set", "sample", "nmi", "ari", "f1"])
        rows.writerows([*key, *(f"{value:.4f}" for value in values)] for key, values in found.items())


def encode_sets(path: Path, root: str, output: Path, sets: list[str] | None, maps: bool) -> list[str]:
    """Run the stages up to the features; returns the names of the sets."""
    overrides = [f"data.root={Path(root).absolute()}", f"output={output.absolute()}"]
    job = load(path, overrides)
    if maps:
        normal_too = [f"data.products.{index}.exclude=[]" for index in range(len(job.data.products))]
        job = load(path, [*overrides, *normal_too, "detector={name: patchcore}"])
    products = tuple(product for product in job.data.products if not sets or product.name in sets)
    job = job.model_copy(update={"data": job.data.model_copy(update={"products": products})})
    plan = make(job)
    steps = [step for step in plan.steps if step.name in STEPS]
    display = Display("quality")
    with display.running(), Runtime() as runtime:
        list(run_steps(steps, plan.root, runtime, display, job.resources.max_quarantined).values())
    return [product.name for product in products]


def measure(output: Path, ablation: bool, maps: bool, name: str) -> Figures:
    """Measure methods on a set and on samples of it."""
    return {
        (method, name, number): _score(sample, find(sample))
        for number, sample in enumerate(read_samples(output, name, maps))
        for method, find in (ABLATION if ablation else METHODS).items()
    }


def _score(sample: Sample, cls_I: NDArray[np.int64]) -> tuple[float, float, float]:
    scores = cluster_scores(sample.label_I, cls_I)
    return scores.nmi, scores.ari, scores.f1


def read_samples(output: Path, name: str, maps: bool) -> Iterator[Sample]:
    """Read a set, and draw the samples."""
    table = find_table(output, "encode", "features", name)
    stored = StoredFeatures(table)
    every: RegionFeatures = stored.take(np.arange(len(stored)), (*FEATURES, *VIEW_FEATURES))
    rows = table.read(["region_id", "image_id", "label"])
    region_ids = np.asarray(rows.column("region_id"))
    ids, first_I, image_N = np.unique(np.asarray(rows.column("image_id")), return_index=True, return_inverse=True)
    label_I = np.array([label or "good" for label in rows.column("label").to_pylist()])[first_I]
    score_I = None
    if maps:
        scored = find_table(output, "detect", "maps", name).read(["image_id", "score"]).to_pydict()
        of_id = dict(zip(scored["image_id"], scored["score"], strict=True))
        score_I = np.array([of_id[image_id] for image_id in ids])
    for number in range(SAMPLES + 1):
        is_kept_I = np.ones(len(ids), bool)
        if number:
            is_kept_I = np.random.default_rng(number).permutation(len(ids)) < round(SHARE * len(ids))
        kept = np.flatnonzero(is_kept_I[image_N])
        some = replace(every.take(kept), image_N=np.unique(image_N[kept], return_inverse=True)[1])
        scores = None
        if score_I is not None:
            scores = ImageScores(score_I[is_kept_I], score_I[image_N[kept]])
        yield Sample(some, label_I[is_kept_I], scores, region_ids[kept])


def find_table(output: Path, stage: str, role: str, name: str) -> Table:
    """Find a table of a set that `encode_sets` has computed."""
    steps = Folder(str(output)) / "steps" / stage
    (found,) = [
        found for each in steps.names() if each.rpartition("-")[0] == name and (found := Output.find(steps / each))
    ]
    return Table(found, role)


def write_tables(found: Figures, methods: list[str], names: list[str]) -> Iterator[str]:
    """Write the table of means, that of NMI, ARI and F1 on the whole sets, and what the rule chooses."""
    samples = range(SAMPLES + 1)
    mean = {(m, s): float(np.mean([found[m, s, i] for i in samples])) for m in methods for s in names}
    of_all = {m: float(np.mean([mean[m, s] for s in names])) for m in methods}
    rank = {m: float(np.mean([1 + sum(mean[o, s] > mean[m, s] for o in methods) for s in names])) for m in methods}
    lines = [f"| method | mean | rank | worst | {' | '.join(names)} |", f"|---|{'---|' * (3 + len(names))}"]
    for m in methods:
        worst = min(mean[m, s] - mean[BASELINE, s] for s in names)
        each = " | ".join(_short(mean[m, s]) for s in names)
        lines.append(f"| {m} | {_short(of_all[m])} | {rank[m]:.1f} | {worst:+.3f} | {each} |")
    yield "\n".join(lines)
    lines = [f"| method, NMI / ARI / F1 on the whole set | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for m in methods:
        lines.append(f"| {m} | {' | '.join('/'.join(_short(v) for v in found[m, s, 0]) for s in names)} |")
    yield "\n".join(lines)
    if len(names) == 1:
        return  # there are no others to choose by
    chosen = {s: _choose(mean, methods, [other for other in names if other != s]) for s in names}
    left_out = {s: mean[chosen[s], s] for s in names}
    each = ", ".join(f"{s}: {chosen[s]} {_short(left_out[s])}" for s in names)
    worst = min(left_out[s] - mean[BASELINE, s] for s in names)
    yield (
        f"The rule chooses **{_choose(mean, methods, names)}**. With each set by the choice of the others the mean is "
        f"{_short(float(np.mean(list(left_out.values()))))}, the worst against {BASELINE} {worst:+.3f} ({each})."
    )


def _choose(mean: Mapping[tuple[str, str], float], methods: list[str], names: list[str]) -> str:
    """Choose the method by the rule, on some sets."""
    allowed = [m for m in methods if min(mean[m, s] - mean[BASELINE, s] for s in names) >= -ALLOWED]
    return max(allowed, key=lambda m: sum(mean[m, s] for s in names))


def _short(figure: float) -> str:
    return f"{figure:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
