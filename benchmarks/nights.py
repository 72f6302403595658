"""Start of a job of `mode: classify` over an output folder with many nights of many products.

    python benchmarks/nights.py MODEL                          # 200 products, 90 nights of an image
    python benchmarks/nights.py MODEL --products 40 --nights 10

MODEL is the folder of any model that needs no masks or maps; each product has a copy of it. The history is generated:
partitions, their index, and published tables with a transaction a night, as jobs write them. Measured are `plan` with
nothing new, what `submit` does with nothing new, from the command to its report, and the same with a new image of each
product: until its first step is done, and as a whole. `submit` has run once before, as on any night but the first.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import yaml
from deltalake import write_deltalake
from timing import describe_machine

from ancd_ray.config.load import load
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS, conform
from ancd_ray.jobs.archive import Archive
from ancd_ray.jobs.classify.pinned import pin_model
from ancd_ray.jobs.classify.publish import make_published_schema, make_state
from ancd_ray.jobs.partitions import FOLDER, Compared, Partition, compare, write_partitions


def main() -> None:
    """Print the seconds of each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--nights", type=int, default=90)
    given = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as scratch:
        file = _write_job(Path(scratch), given.model.resolve(), given.products, given.nights)
        _write_history(file, given.nights)
        print(f"{given.products} products x {given.nights} nights\n| command | wall, s | a product, s |\n|---|---|---|")
        _run(file, "submit", "0 new images")
        for command in ("plan", "submit"):
            _, seconds = _run(file, command, "0 new images")
            _tell(f"{command}, nothing new", seconds, given.products)
        for folder in sorted((Path(scratch) / "archive").iterdir()):
            shutil.copy(folder / "000.png", folder / "new.png")
        first, seconds = _run(file, "submit", "1 new image,", "classify_images")
        _tell("submit, a new image each: until its first step is done", first, given.products)
        _tell("submit, a new image each", seconds, given.products)


def _run(file: Path, command: str, expected: str, until: str = "") -> tuple[float, float]:
    """Run a command; returns the seconds until its output has a word, and until its end."""
    start, first, said = time.perf_counter(), 0.0, ""
    with subprocess.Popen(
        [sys.executable, "-m", "ancd_ray", command, str(file)], stdout=-1, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            said += line
            first = first or (time.perf_counter() - start if until and until in line else 0.0)
    assert process.returncode == 0, said
    assert expected in said, said
    return first, time.perf_counter() - start


def _tell(what: str, seconds: float, products: int) -> None:
    print(f"| {what} | {seconds:.1f} | {seconds / products:.2f} |", flush=True)


def _write_job(root: Path, model: Path, products: int, nights: int) -> Path:
    rng = np.random.default_rng(0)
    names = [f"p{i:03d}" for i in range(products)]
    for name in names:
        shutil.copytree(model, root / "models" / name)
        folder = root / "archive" / name
        folder.mkdir(parents=True)
        for night in range(nights):
            cv2.imwrite(str(folder / f"{night:03d}.png"), rng.integers(0, 255, (16, 16), np.uint8))
    document = {
        "name": "nights",
        "mode": "classify",
        "model": str(root / "models" / "{product}"),
        "data": {
            "root": str(root / "archive"),
            "products": [{"name": name, "layout": "folder", "path": name} for name in names],
        },
        "output": str(root / "out"),
    }
    file = root / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def _write_history(file: Path, nights: int) -> None:
    """Write partitions of an image each, and their rows in published tables."""
    job = load(file, ())
    root, archive = Path(job.output_root), Archive(job.data.root)
    rows: list[list[pa.Table]] = [[] for _ in range(nights)]
    for product in job.data.products:
        assert job.model is not None
        model = pin_model(job.model, product.name)
        compared = compare(
            Folder(str(root)) / FOLDER / product.name, archive.product(product, model.detector.reads_maps)
        )
        partitions = [_divide(compared, night) for night in range(nights)]
        write_partitions(partitions)
        for night, partition in enumerate(partitions):
            images = partition.read()[0].table
            values = {"probs": [1.0], "cls": 0, "confidence": 1.0, "is_normal": False, "n_regions": 0, "score": 1.0}
            values |= {"novelty": 0.0, "is_unknown": False, "brightness": 127.0}
            found = [
                {**{key: image[key] for key in ("image_id", "product", "uri", "label")}, **values}
                for image in images.to_pylist()
            ]
            table = conform(found, SCHEMAS["image_predictions"])
            state = make_state(product.name, partition, model.digest)
            schema = make_published_schema("image_predictions")
            added = {"class_id": model.class_ids[0], "day": date(2026, 1, 1) + timedelta(days=night)}
            added |= {"partition": partition.id, "model": model.digest, "state": state}
            for name, value in added.items():
                table = table.append_column(name, pa.array([value] * len(table), schema.field(name).type))
            rows[night].append(table.select(schema.names).cast(schema))
    for tables in rows:
        place = str(root / "archive" / "image_predictions")
        write_deltalake(place, pa.concat_tables(tables), mode="append", partition_by=["product"])


def _divide(compared: Compared, night: int) -> Partition:
    is_in_N = np.zeros(len(compared.number_N), bool)
    is_in_N[night] = True
    return compared.make_partition(is_in_N, night)


if __name__ == "__main__":
    main()
