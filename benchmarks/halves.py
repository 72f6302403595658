"""Images that no discovery saw: a discovery over one half of a product classifies the other.

    python benchmarks/halves.py runs/mtd runs/lpbf                     # output folders of finished discoveries
    python benchmarks/halves.py runs/mtd --methods ward linked --seeds 5

The features of the regions are those that the discoveries have stored. Of each seed, half of the images are clustered,
and the others classified by the result. Compared are the ARI of the latter, of the half that was clustered, and of the
latter in a clustering of all images. The number of classes is that of the labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder
from ancd_ray.discovery.cluster_regions import cluster_regions
from ancd_ray.discovery.features import FEATURES, VIEW_FEATURES
from ancd_ray.discovery.features.region_features import RegionFeatures, StoredFeatures
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.outputs import Output
from ancd_ray.method.merging import merge_images


def main() -> None:
    """Print a row for each product and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", nargs="+", type=Path)
    parser.add_argument("--methods", nargs="+", default=["ward", "linked"])
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    print("| product | method | images not seen: ARI | the half that was clustered | in a discovery over all |")
    print("|---|---|---|---|---|")
    for output in asked.outputs:
        for name, table in _find_features(output):
            for method in asked.methods:
                found = np.mean([_measure(table, method, seed) for seed in range(asked.seeds)], axis=0)
                print(f"| {name} | {method} | {' | '.join(f'{value:.3f}' for value in found)} |", flush=True)


def _find_features(output: Path) -> Iterator[tuple[str, Table]]:
    steps = Folder(str(output)) / "steps" / "encode"
    for name in steps.names():
        found = Output.find(steps / name)
        if found:
            yield name.rpartition("-")[0], Table(found, "features")


def _measure(table: Table, method: str, seed: int) -> tuple[float, float, float]:
    """Return the ARI of half of the images, classified by the other half; of that; and of the former in all."""
    stored = StoredFeatures(table)
    names = (*FEATURES, *VIEW_FEATURES) if method == "spectral" else FEATURES
    every = stored.take(np.arange(len(stored)), names)
    rows = table.read(["image_id", "label", "area"])
    ids, image_N = np.unique(np.asarray(rows.column("image_id")), return_inverse=True)
    labels = np.array([label or "" for label in rows.column("label").to_pylist()])
    label_I = labels[np.unique(image_N, return_index=True)[1]]
    classes = Classes((), len(set(labels)), has_normal=False)
    is_first_I = np.random.default_rng(seed).permutation(len(ids)) < len(ids) // 2
    is_first_N = is_first_I[image_N]
    area_N = rows.column("area").to_numpy()

    def classify(known: NDArray[np.bool_]) -> NDArray[np.int64]:
        some: RegionFeatures = every.take(np.flatnonzero(known))
        found = cluster_regions(some, None, method, classes, 0, "")
        return merge_images(
            image_N, found.predict(getattr(every, f"{found.feature}_ND"), None).probs_NK, area_N, 50.0
        ).argmax(axis=1)

    by_half_I, by_all_I = classify(is_first_N), classify(np.ones(len(labels), bool))
    return (
        adjusted_rand_score(label_I[~is_first_I], by_half_I[~is_first_I]),
        adjusted_rand_score(label_I[is_first_I], by_half_I[is_first_I]),
        adjusted_rand_score(label_I[~is_first_I], by_all_I[~is_first_I]),
    )


if __name__ == "__main__":
    main()
