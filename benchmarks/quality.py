"""Quality of methods over data sets and subsamples of them, from features that are computed once.

    python benchmarks/quality.py CACHE --root DATA                # drawn masks
    python benchmarks/quality.py CACHE --root DATA --ablation     # `spectral` without one of its parts, or with another
    python benchmarks/quality.py CACHE --root DATA --ablation consensus   # a consensus of clusterings without some
    python benchmarks/quality.py CACHE --root DATA --maps         # anomaly maps, and normal images among the others
    python benchmarks/quality.py CACHE --root DATA --maps --ablation      # `spectral` with other ways to tell these
    python benchmarks/quality.py CACHE --root DATA --maps --methods spectral --set mebin.binarize=mebin \
        --set mebin.binarize=calibrated detector.image_size=512

Each method clusters the main regions of a set into as many classes as are labeled; the class of an image is that of its
main region. NMI, ARI and F1 are of images, each the mean over the whole set and four samples of 80 % of its images.
Each `--set` has keys of the job for regions of their own, which every method clusters: their table has a row for each
method and `--set`. CACHE gets the features, `quality.csv` with all figures and `quality.md` with the tables that are
printed.

The rule by which defaults are chosen: the best mean over all sets, of methods that on no set are more than .01 below
Ward's algorithm on centred features, or, where it is not measured, the first row. As a check, each set gets the method
that the rule chooses on the others.
"""

from __future__ import annotations

import argparse
import csv
import functools
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_consensus import CONSENSUS
from quality_maps import ABLATION_OF_MAPS, BY_LABELS, describe_maps
from quality_methods import ABLATION, BASELINE, METHODS, Method, Sample
from quality_sets import SAMPLES, Set, encode_sets, read_samples

from ancd_ray.data.roles import GOOD
from ancd_ray.method.metrics import cluster_scores, normal_scores

JOB = Path(__file__).with_suffix(".yaml")
ALLOWED = 0.01  # a default is at most that much worse than the baseline on any set
Figures = dict[tuple[str, str, int], tuple[float, ...]]  # row, set, sample → NMI, ARI, F1, and with maps of normal


def main() -> None:
    """Compute what is missing of the features, measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--root", required=True, help="folder of the data sets")
    parser.add_argument("--job", type=Path, default=JOB)
    parser.add_argument("--maps", action="store_true")
    parser.add_argument("--ablation", nargs="?", const="parts", default="", choices=["parts", "consensus"])
    parser.add_argument("--sets", nargs="*", help="some of the sets")
    parser.add_argument("--methods", nargs="*", help="some of the methods")
    parser.add_argument("--set", nargs="+", action="append", dest="settings", help="keys of a job whose regions differ")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    output = asked.cache / ("maps" if asked.maps else "masks")
    sets = [
        found
        for settings in asked.settings or [[]]
        for found in encode_sets(asked.job, asked.root, output, asked.sets, asked.maps, settings)
    ]
    methods = asked.methods or list(_find_methods(asked.maps, asked.ablation))
    start, found = time.monotonic(), {}
    with ProcessPoolExecutor(asked.workers, multiprocessing.get_context("spawn")) as pool:  # libraries have threads
        for figures in pool.map(functools.partial(measure, methods, asked.maps, asked.ablation), sets):
            found |= figures
    rows, names = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    baseline = next((row for row in rows if row == BASELINE or row.startswith(f"{BASELINE} · ")), rows[0])
    tables = [*([describe_maps(sets)] if asked.maps else []), *write_tables(found, rows, names, baseline)]
    text = "\n\n".join(tables)
    print(f"{text}\n\n{time.monotonic() - start:.0f} s")
    kind = {"": "", "parts": "_ablation", "consensus": "_consensus"}[asked.ablation] + "_maps" * asked.maps
    (asked.cache / f"quality{kind}.md").write_text(text + "\n", "utf-8")
    with (asked.cache / f"quality{kind}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        of_normal = ["precision", "recall"] if asked.maps else []
        writer.writerow(["method", "set", "sample", "nmi", "ari", "f1", *of_normal])
        writer.writerows([*key, *(f"{value:.4f}" for value in values)] for key, values in found.items())


def measure(methods: Sequence[str], maps: bool, ablation: str, each: Set) -> Figures:
    """Measure methods on a set and on samples of it."""
    of_name, suffix = _find_methods(maps, ablation), f" · {each.settings}" if each.settings else ""
    return {
        (name + suffix, each.name, number): _score(sample, of_name[name](sample), maps)
        for number, sample in enumerate(read_samples(each, maps))
        for name in methods
    }


def _find_methods(maps: bool, ablation: str) -> Mapping[str, Method]:
    if ablation == "consensus":
        return CONSENSUS
    if ablation:
        return ABLATION_OF_MAPS if maps else ABLATION
    return METHODS


def _score(sample: Sample, cls_I: NDArray[np.int64], maps: bool) -> tuple[float, ...]:
    scores = cluster_scores(sample.label_I, cls_I)
    of_normal = normal_scores(sample.label_I == GOOD, cls_I == 0) if maps else ()  # the class 0 is the normal one
    return scores.nmi, scores.ari, scores.f1, *of_normal


def write_tables(found: Figures, rows: list[str], names: list[str], baseline: str) -> Iterator[str]:
    """Write the table of means, that of NMI, ARI and F1 on the whole sets, and what the rule chooses."""
    samples = range(SAMPLES + 1)
    mean = {(m, s): float(np.mean([found[m, s, i][:3] for i in samples])) for m in rows for s in names}
    of_all = {m: float(np.mean([mean[m, s] for s in names])) for m in rows}
    rank = {m: float(np.mean([1 + sum(mean[o, s] > mean[m, s] for o in rows) for s in names])) for m in rows}
    lines = [f"| method | mean | rank | worst | {' | '.join(names)} |", f"|---|{'---|' * (3 + len(names))}"]
    for m in rows:
        worst = min(mean[m, s] - mean[baseline, s] for s in names)
        each = " | ".join(_short(mean[m, s]) for s in names)
        lines.append(f"| {m} | {_short(of_all[m])} | {rank[m]:.1f} | {worst:+.3f} | {each} |")
    yield "\n".join(lines)
    lines = [
        f"| method, NMI / ARI / F1 on the whole set | {' | '.join(names)} | mean |",
        f"|---|{'---|' * (len(names) + 1)}",
    ]
    for m in rows:
        whole = [found[m, s, 0][:3] for s in names]
        cells = ["/".join(map(_short, figures)) for figures in (*whole, np.mean(whole, axis=0))]
        lines.append(f"| {m} | {' | '.join(cells)} |")
    yield "\n".join(lines)
    if len(found[rows[0], names[0], 0]) > 3:
        lines = [f"| normal images of the whole set: precision, recall | {' | '.join(names)} |"]
        lines.append(f"|---|{'---|' * len(names)}")
        lines += [f"| {m} | {' | '.join('/'.join(map(_short, found[m, s, 0][3:])) for s in names)} |" for m in rows]
        yield "\n".join(lines)
    if len(names) == 1:
        return  # there are no others to choose by
    chosen = {s: _choose(mean, rows, baseline, [other for other in names if other != s]) for s in names}
    left_out = {s: mean[chosen[s], s] for s in names}
    each = ", ".join(f"{s}: {chosen[s]} {_short(left_out[s])}" for s in names)
    worst = min(left_out[s] - mean[baseline, s] for s in names)
    yield (
        f"The rule chooses **{_choose(mean, rows, baseline, names)}**. With each set by the choice of the others the "
        f"mean is {_short(float(np.mean(list(left_out.values()))))}, the worst against {baseline} {worst:+.3f} "
        f"({each})."
    )


def _choose(mean: Mapping[tuple[str, str], float], rows: list[str], baseline: str, names: list[str]) -> str:
    """Choose the row by the rule, on some sets."""
    blind = [m for m in rows if not m.startswith(BY_LABELS)]
    allowed = [m for m in blind if min(mean[m, s] - mean[baseline, s] for s in names) >= -ALLOWED]
    return max(allowed, key=lambda m: sum(mean[m, s] for s in names))


def _short(figure: float) -> str:
    return f"{figure:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
