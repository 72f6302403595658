"""MuSc over data sets without its stages: number and choice of references, share of defects among them, image scores.

    python benchmarks/musc.py benchmarks/detectors.yaml data.root=/archive output=runs/musc --detector '{name: musc}'
    python benchmarks/musc.py … --detector '{name: musc, references: 25}' --seeds 3
    python benchmarks/musc.py … --detector '{name: musc}' --defects 0.1         # in ten references a defective one
    python benchmarks/musc.py --growth 500 8000 --detector '{name: musc}'       # seconds an image, generated images

The references are a seeded sample of the images of a product, as they come, or with a share of defective ones. Of each
map, three image scores are compared: its maximum, the mean of its highest 2 %, and the maximum averaged with those of
the nearest images among the references (RsCIN), weighted by the cosine of mean features, in groups of 3 and of 9.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from ancd_ray.backbones.lite import Lite
from ancd_ray.config.load import load
from ancd_ray.data.demo.generate import draw
from ancd_ray.data.images import BadImage
from ancd_ray.data.roles import GOOD, is_defect
from ancd_ray.data.sources import attach_range, has_mask
from ancd_ray.detectors.base import AnomalyMap, Scorer
from ancd_ray.detectors.ground_truth import MaskReader
from ancd_ray.detectors.musc import MuSc
from ancd_ray.detectors.patch_features import compute_features
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make
from ancd_ray.method.metrics import MapCurve, auroc

TOP = 0.02  # of the pixels of a map, whose mean is another image score
GROUPS = (3, 9)  # an image and its nearest ones
KINDS = ("good", "hole", "scratch")
DRAWN = 500  # images that growth repeats
NAMES = ("AUPRO", "image AUROC: maximum", "top 2 %", *(f"RsCIN {n}" for n in GROUPS))
Images = list[dict[str, Any]]  # rows of the table `images`


class Trial(NamedTuple):
    """A product and the images of it that are scored and that the references are chosen from."""

    product: str
    images: Images
    sample: Images
    means: dict[str, NDArray[np.float32]]  # mean features of length 1 of images, those that were asked for


def main() -> None:
    """Measure each detector on each product and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--detector", action="append", required=True, help="content of the section, as YAML")
    parser.add_argument("--sample", type=int, default=150, help="images of a product that are scored")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--defects", type=float, help="share of defects among the references; by default as they come")
    parser.add_argument("--growth", type=int, nargs="+", help="numbers of images")
    given = parser.parse_intermixed_args()
    configs = [MuSc.model_validate(yaml.safe_load(text)) for text in given.detector]
    if given.growth:
        for text, config in zip(given.detector, configs, strict=True):
            measure_growth(text, config, given.growth)
        return
    print(f"| detector | product | {' | '.join(NAMES)} |\n|---|---|{'---|' * len(NAMES)}", flush=True)
    found: dict[str, list[list[float]]] = {text: [] for text in given.detector}
    for trial in _read(given.job, given.overrides, given.sample):
        for text, config in zip(given.detector, configs, strict=True):
            for seed in range(given.seeds):
                figures = measure(config, trial, seed, given.defects)
                found[text].append(figures)
                _print(f"{text}, seed {seed}", trial.product, figures)
    for text, rows in found.items():
        _print(text, "**mean**", [statistics.mean(column) for column in zip(*rows, strict=True)])


def _read(job: str, overrides: Sequence[str], n: int) -> Iterator[Trial]:
    """List the products of a job, and sample the images that are scored."""
    plan = make(load(Path(job), list(overrides)))
    steps = [step for step in plan.steps if step.name == "catalog"]
    display = Display("musc")
    with display.running(), Runtime() as runtime:
        list(run_steps(steps, plan.root, runtime, display, plan.job.resources.max_quarantined).values())
    for step in steps:
        output = Output.find(step.folder(plan.root))
        assert output is not None
        rows = attach_range(output.table("images").to_pylist(), None)
        images = [row for row in rows if row["role"] == "query"]
        chosen = sorted(np.random.default_rng(0).permutation(len(images))[:n].tolist())
        yield Trial(step.product, images, [images[i] for i in chosen], {})


def measure(config: MuSc, trial: Trial, seed: int, defects: float | None) -> list[float]:
    """Score the sample by references of a seed; returns the figures of `NAMES`."""
    references = _choose(trial.images, config.references, seed, defects)
    scorer = fit(config, references)
    wanted = {image["image_id"]: image for image in (*trial.sample, *references)}
    _add_means(trial.means, [image for image_id, image in wanted.items() if image_id not in trial.means])
    maps = dict(zip(wanted, score(scorer, list(wanted.values())), strict=True))
    sample = [image["image_id"] for image in trial.sample]
    highest = {image_id: float(values.max()) for image_id, values in maps.items()}
    top = [float(np.sort(maps[i], axis=None)[-max(1, round(TOP * maps[i].size)) :].mean()) for i in sample]
    rescored = [[_rescore(i, highest, trial, references, n) for i in sample] for n in GROUPS]
    is_anomalous = np.array([is_defect(wanted[i]["label"]) for i in sample])
    curve = MapCurve(0.0, max(highest[i] for i in sample))
    for image in trial.sample:
        mask = MaskReader().score([image])[0] if has_mask(image) or image["label"] == GOOD else None
        if mask is not None and not isinstance(mask, BadImage):
            values = maps[image["image_id"]]
            small = cv2.resize(mask, values.shape[::-1], interpolation=cv2.INTER_AREA)
            curve.add(values, np.where(small > 127, 255, 0).astype(np.uint8))
    scores = [[highest[i] for i in sample], top, *rescored]
    return [curve.aupro() or 0.0, *(auroc(is_anomalous, np.array(each)) or 0.0 for each in scores)]


def _add_means(means: dict[str, NDArray[np.float32]], images: Images) -> None:
    for image, found in compute_features(Lite(), MuSc(name="musc"), images, (1,)):
        assert not isinstance(found, BadImage)
        ((_, (grid,)),) = found.tiles
        mean_D = grid.features_RCD.flatten(0, 1).mean(dim=0)
        means[image["image_id"]] = (mean_D / mean_D.norm()).numpy()


def _choose(images: Images, n: int, seed: int, defects: float | None) -> Images:
    """Choose the references; with a share of defects, as many as there are good images for."""
    shuffled = [images[i] for i in np.random.default_rng(seed + 1).permutation(len(images))]
    if defects is None:
        return shuffled[:n]
    bad, good = ([each for each in shuffled if is_defect(each["label"]) is kind] for kind in (True, False))
    n = min(n, round(len(good) / (1 - defects)))
    n_bad = round(defects * n)
    return [*bad[:n_bad], *good[: n - n_bad]]


def _rescore(image_id: str, scores: dict[str, float], trial: Trial, references: Images, n: int) -> float:
    """Average the score of an image and those of its nearest references (RsCIN)."""
    others = [each["image_id"] for each in references if each["image_id"] != image_id]
    cosine = np.array([trial.means[image_id] @ trial.means[other] for other in others])
    nearest = np.argsort(-cosine)[: n - 1]
    weights = np.append(cosine[nearest].clip(min=0), 1.0)
    return float(np.average([*(scores[others[i]] for i in nearest), scores[image_id]], weights=weights))


def fit(config: MuSc, images: Images) -> Scorer:
    """Fit the detector to references."""
    backbone = Lite()
    collected = [(image["image_id"], rows) for image, rows in config.collect(images, backbone, len(images))]

    def read(size: int, side: int) -> Iterator[tuple[str, NDArray[np.float16]]]:
        for image_id, rows in collected:
            assert not isinstance(rows, BadImage)
            yield from ((image_id, row.features_ND) for row in rows if row[:2] == (size, side))

    state, _ = config.fit(read)
    return config.make_scorer(lambda: backbone, {config.name_state(0): state})


def score(scorer: Scorer, images: Images) -> Iterator[AnomalyMap]:
    """Compute the maps of images, a few at a time."""
    for start in range(0, len(images), 16):
        for found in scorer.score(images[start : start + 16]):
            assert not isinstance(found, BadImage)
            yield found


def measure_growth(text: str, config: MuSc, numbers: Sequence[int]) -> None:
    """Score archives of generated images; each image of a larger one is there several times."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(DRAWN):
            sample = draw("tile", "test", KINDS[i % len(KINDS)], i)
            cv2.imwrite(f"{folder}/{i}.png", sample.image)
        print("| detector | images | fit, s | CPU s an image | peak memory, MiB |\n|---|---|---|---|---|")
        for n in numbers:
            images: Images = [
                {"image_id": f"{i:020x}", "uri": f"{folder}/{i % DRAWN}.png", "role": "query"} for i in range(n)
            ]
            start = time.process_time()
            chosen = config.choose_images((image["image_id"], "query") for image in images)
            scorer = fit(config, [image for image in images if image["image_id"] in chosen])
            fitted = time.process_time()
            for _ in score(scorer, images):
                pass
            each = (time.process_time() - fitted) / n
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"| {text} | {n} | {fitted - start:.1f} | {each:.4f} | {peak:.0f} |", flush=True)


def _print(detector: str, product: str, figures: Sequence[float]) -> None:
    cells = " | ".join(f"{figure:.3f}".removeprefix("0") for figure in figures)
    print(f"| {detector} | {product} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
