"""A model behind MLflow (`mlflow models serve`), against the pass of `mode: classify` over the same images.

    python benchmarks/serving.py runs/mtd/runs/mtd-1a2b3c/models/mtd /archive/mtd/test
    OMP_NUM_THREADS=1 python benchmarks/serving.py MODEL IMAGES --images 256 --turns 5 --masks MASKS

Both in one process that has the model loaded, in turns. The pass reads files; the pyfunc is given what a server gives
it, a data frame with images in base64, in batches of 32, and its answers are JSON. HTTP itself is left out. Classes and
confidences have to be the same. The goal is 0.8 of the rate of the pass.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from timing import describe_machine

from ancd_ray.cli.predict import list_inputs
from ancd_ray.jobs.tracking import save_pyfunc
from ancd_ray.jobs.tracking.store import prepare_mlflow
from ancd_ray.models.classify_images import classify_listed
from ancd_ray.models.model import ImageInput, Model

GOAL = 0.8


def main() -> None:
    """Print the medians of both, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with model.json")
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("--masks", type=Path, help="folder of masks, for a model that needs them")
    parser.add_argument("--maps", type=Path, help="folder of anomaly maps, for a model that needs them")
    parser.add_argument("--images", type=int, default=128, help="at most, evenly chosen")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    every = list(list_inputs([given.folder], given.masks, given.maps))
    images = every[:: max(1, len(every) // given.images)][: given.images]
    model = Model.load(given.model)
    served, batches = load_served(model), make_batches(images, given.batch)

    def classify() -> dict[str, tuple[int, float]]:
        found = classify_listed(model, model.make_rows(images))
        rows = found.image_predictions.select(["uri", "cls", "confidence"]).to_pylist()
        return {row["uri"]: (row["cls"], row["confidence"]) for row in rows}

    def serve() -> dict[str, tuple[int, float]]:
        answers = [json.loads(text) for batch in batches for text in served.predict(batch)["prediction"]]
        return {row["image"]: (row["cls"], row["confidence"]) for row in answers if "cls" in row}

    assert serve() == classify(), "the same classes"  # and both are warm
    turns = [(measure(serve), measure(classify)) for _ in range(given.turns)]
    print(describe_machine())
    print(f"{len(images)} images, batches of {given.batch}; medians of {given.turns} turns")
    print("| | wall, s | CPU, s | images/s |\n|---|---|---|---|")
    for place, name in enumerate(("pyfunc", "the pass")):
        wall, cpu = (statistics.median(turn[place][kind] for turn in turns) for kind in (0, 1))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {len(images) / wall:.1f} |")
    for kind, unit in enumerate(("wall", "CPU")):
        ratio = statistics.median(other[kind] / one[kind] for one, other in turns)
        print(f"{unit}: the pyfunc has {ratio:.2f} of the rate of the pass (goal: {GOAL})")


def measure(call: Callable[[], object]) -> tuple[float, float]:
    """Measure wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def load_served(model: Model) -> Any:
    """Save a model as a pyfunc and load it as a server does."""
    with tempfile.TemporaryDirectory() as scratch, prepare_mlflow():
        import mlflow

        save_pyfunc(model, Path(scratch) / "model")
        return mlflow.pyfunc.load_model(str(Path(scratch) / "model"))


def make_batches(images: Sequence[ImageInput], size: int) -> list[pd.DataFrame]:
    """Make requests of so many images."""
    rows = [
        {
            "image": encode(each.image),
            "name": each.name,
            **({"mask": encode(each.mask)} if each.mask else {}),
            **({"anomaly_map": encode(each.anomaly_map)} if each.anomaly_map else {}),
        }
        for each in images
    ]
    return [pd.DataFrame(rows[start : start + size]) for start in range(0, len(rows), size)]


def encode(file: Any) -> str:
    """Return the content of a file in base64."""
    return base64.b64encode(Path(file).read_bytes()).decode()


if __name__ == "__main__":
    main()
