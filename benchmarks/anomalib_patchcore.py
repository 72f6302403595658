"""PatchCore against that of anomalib: image AUROC and CPU seconds from files to scores, on one thread.

    python benchmarks/anomalib_patchcore.py ancd-ray scratch benchmarks/detectors.yaml data.root=/archive
    OTHER_ENVIRONMENT/bin/python benchmarks/anomalib_patchcore.py anomalib scratch

The second command runs in an environment with anomalib. It reads from the folder `scratch` what the first one writes:
the list of images, the share of patches in the memory bank, and the weights of the trunk. Scores are written beside
them. anomalib's model is called directly, without Lightning's loop around it; imports and loading weights do not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

NORMALS, TESTS, RATIO = 200, 200, 0.1
STRIDES = {8: 2, 16: 3, 32: 4}  # index of the trunk's output
BATCH = 8


def main() -> None:
    """Run one side, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["ancd-ray", "anomalib"])
    parser.add_argument("scratch", type=Path)
    parser.add_argument("job", nargs="*", help="job file and overrides; its first product is taken")
    parser.add_argument("--normals", type=int, default=NORMALS)
    parser.add_argument("--tests", type=int, default=TESTS)
    parser.add_argument("--strides", type=int, nargs="+", default=[16, 32], help="of anomalib; the first is its grid")
    parser.add_argument("--size", type=int, nargs=2, default=[224, 320], help="height and width for anomalib")
    given = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    given.scratch.mkdir(parents=True, exist_ok=True)
    listing = given.scratch / "images.json"
    if given.side == "ancd-ray":
        listing.write_text(json.dumps(list_images(given.job, given.normals, given.tests)), "utf-8")
        seconds, scores = run_ancd_ray(json.loads(listing.read_text("utf-8")), given.scratch)
    else:
        seconds, scores = run_anomalib(json.loads(listing.read_text("utf-8")), given)
    labels = [bool(each["is_defect"]) for each in json.loads(listing.read_text("utf-8"))["tests"]]
    np.save(given.scratch / f"{given.side}.npy", scores)
    print(
        f"{given.side}: fit {seconds[0]:.1f} s, score {seconds[1]:.1f} s, together {sum(seconds):.1f} s; "
        f"image AUROC {compute_auroc(scores, labels):.4f}",
        flush=True,
    )


def list_images(job: Sequence[str], n_normals: int, n_tests: int) -> dict[str, Any]:
    """List a seeded sample of the images of the first product of a job."""
    from ancd_ray.config.load import load
    from ancd_ray.data.layouts import list_product
    from ancd_ray.data.roles import is_defect

    data = load(Path(job[0]), job[1:]).data
    images = list_product(data.products[0], data.root).images
    sides = {
        "normals": ([each for each in images if each.role == "normal"], n_normals),
        "tests": ([each for each in images if each.role != "normal"], n_tests),
    }
    return {
        name: [{"uri": each.uri, "is_defect": is_defect(each.label)} for each in choose(found, n)]
        for name, (found, n) in sides.items()
    }


def choose(found: Sequence[Any], n: int) -> list[Any]:
    """Choose n of them."""
    return [found[i] for i in sorted(np.random.default_rng(0).permutation(len(found))[:n])]


def run_ancd_ray(images: dict[str, Any], scratch: Path) -> tuple[tuple[float, float], np.ndarray]:
    """Fit the detector to all patches of the normal images, and score the others; write the trunk's weights."""
    from safetensors.torch import save_file

    from ancd_ray.backbones.lite import Lite, load_trunk
    from ancd_ray.detectors.patchcore import PatchCore

    save_file(load_trunk().state_dict(), scratch / "trunk.safetensors")
    backbone = Lite()
    normals, tests = ([make_row(each["uri"]) for each in images[name]] for name in ("normals", "tests"))
    begun = time.process_time()
    config = PatchCore(name="patchcore", candidates=10**6)
    collected = [(row["image_id"], found) for row, found in config.collect(normals, backbone, len(normals))]
    n_patches = sum(len(found[0].features_ND) for _, found in collected)
    config = PatchCore(name="patchcore", coreset=int(RATIO * n_patches))

    def read(size: int, side: int) -> Iterator[tuple[str, Any]]:
        for image_id, found in collected:
            yield from ((image_id, each.features_ND) for each in found if each[:2] == (size, side))

    state = {config.name_state(0): config.fit(read)[0]}
    fitted = time.process_time()
    maps = config.make_scorer(lambda: backbone, state).score(tests)
    ended = time.process_time()
    return (fitted - begun, ended - fitted), np.array([float(np.max(found)) for found in maps])


def make_row(uri: str) -> dict[str, Any]:
    """Make a row of `images`."""
    import hashlib

    return {"image_id": hashlib.sha256(uri.encode()).hexdigest()[:20], "uri": uri, "role": "query", "label": None}


def run_anomalib(images: dict[str, Any], given: argparse.Namespace) -> tuple[tuple[float, float], np.ndarray]:
    """Do the same with anomalib's reader of images, its preprocessing, and its model."""
    from anomalib.data.utils import read_image
    from anomalib.models.image.patchcore.lightning_model import Patchcore
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from safetensors.torch import load_file

    model = PatchcoreModel([STRIDES[each] for each in given.strides], "tf_efficientnet_lite0", pre_trained=False)
    trunk = model.feature_extractor.feature_extractor
    weights = load_file(given.scratch / "trunk.safetensors")
    missing, _ = trunk.load_state_dict({name: weights[name] for name in trunk.state_dict()}, strict=True)
    assert not missing
    prepare = Patchcore.configure_pre_processor(tuple(given.size)).transform

    def read(name: str) -> Iterator[torch.Tensor]:
        rows = images[name]
        for start in range(0, len(rows), BATCH):
            yield torch.stack([prepare(read_image(each["uri"], as_tensor=True)) for each in rows[start:][:BATCH]])

    with torch.inference_mode():
        begun = time.process_time()
        model.train()
        model.feature_extractor.eval()
        for batch in read("normals"):
            model(batch)
        model.subsample_embedding(RATIO)
        fitted = time.process_time()
        model.eval()
        scores = [model(batch).pred_score for batch in read("tests")]
        ended = time.process_time()
    return (fitted - begun, ended - fitted), torch.cat(scores).numpy()


def compute_auroc(scores: np.ndarray, labels: Sequence[bool]) -> float:
    """Compute the probability that a defect has a higher score than a good image."""
    high, low = scores[np.array(labels)], scores[~np.array(labels)]
    return float((high[:, None] > low).mean() + (high[:, None] == low).mean() / 2)


if __name__ == "__main__":
    main()
