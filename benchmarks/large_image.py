"""Peak memory and time of a large image in tiles, from its file to its regions, in one process.

python benchmarks/large_image.py                          # 12,000 x 10,000 and 2,000 x 16,000, PatchCore
python benchmarks/large_image.py --detector musc --sizes 6000x5000

The surfaces are generated, with dark dots of 5 px. The detector learns from four normal images of 2,000 x 1,500 in
another process. One line tells the size, the peak of resident memory, seconds by step, and the dots under regions.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZES = ("12000x10000", "2000x16000")
NORMALS, DOTS = 4, 12


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="width x height")
    parser.add_argument("--detector", default="patchcore", choices=["patchcore", "musc"])
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    config = {
        "name": given.detector,
        "image_size": given.image_size,
        "tile": {"size": given.tile, "overlap": given.tile // 8},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.worker or scratch)
        if given.worker:
            print(json.dumps(classify(folder, config) if (folder / "query.jpg").exists() else fit(folder, config)))
            return
        for i in range(NORMALS):
            write_surface(folder / f"{i}.png", 2000, 1500, seed=i)
        run(folder)
        for size in given.sizes:
            width, height = map(int, size.split("x"))
            dots = write_surface(folder / "query.jpg", width, height, seed=99, dots=DOTS)
            (folder / "dots.json").write_text(json.dumps(dots))
            found = run(folder)
            print(
                f"{given.detector}, {width:,} x {height:,}: {found['peak']:.2f} GiB ({found['start']:.2f} before the "
                f"image), detect {found['detect']:.0f} s, regions {found['regions']:.1f} s, map "
                f"{found['map'][1]} x {found['map'][0]}, {found['above']} of {DOTS} dots above all "
                f"else, {found['hit']} in {found['boxes']} regions of median side {found['side']} px",
                flush=True,
            )


def run(folder: Path) -> dict[str, Any]:
    """Run this file again, for one step in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(folder)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def write_surface(path: Path, width: int, height: int, seed: int, dots: int = 0) -> list[tuple[int, int]]:
    """Write a brushed surface, with dots of 5 px at the places (x, y) that are returned."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width), np.uint8)
    for top in range(0, height, 500):
        rows = min(500, height - top)
        brushed = cv2.GaussianBlur(rng.normal(size=(rows, width)).astype(np.float32), (0, 0), sigmaX=40, sigmaY=1)
        image[top : top + rows] = np.clip(128 + 90 * brushed + 2 * rng.normal(size=(rows, width)), 0, 255)
    places = [(int(rng.integers(200, width - 200)), int(rng.integers(200, height - 200))) for _ in range(dots)]
    for place in places:
        cv2.circle(image, place, 2, 10, -1)
    cv2.imwrite(str(path), cv2.merge([image] * 3))  # in JPEG with a quality of 95
    return places


def make_row(path: Path, width: int = 0, height: int = 0) -> dict[str, Any]:
    """Make a row of `images`."""
    ids = {"image_id": f"{zlib.crc32(path.name.encode()):020x}", "product": "p", "uri": str(path), "role": "query"}
    return {**ids, "label": None, "mask_uris": [], "width": width, "height": height}


def fit(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit the detector, and write its state and its calibration with the normal images."""
    from ancd_ray.backbones.lite import Lite
    from ancd_ray.config.job import Job
    from ancd_ray.detectors.calibration import Calibration

    config = Job.parse_detector(settings)
    images = [make_row(folder / f"{i}.png", 2000, 1500) for i in range(NORMALS)]
    collected = [(image["image_id"], found) for image, found in config.collect(images, Lite(), NORMALS)]

    def read(size: int, side: int) -> Any:
        for image_id, found in collected:
            yield from ((image_id, each.features_ND) for each in found if each[:2] == (size, side))

    (folder / "state").write_bytes(config.fit(read)[0])
    scorer = config.make_scorer(Lite, {config.name_state(0): (folder / "state").read_bytes()})
    maps = {image["image_id"]: found for image, found in zip(images, scorer.score(images), strict=True)}
    (folder / "calibration").write_bytes(Calibration.measure(maps, {}).write())
    return {}


def classify(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Compute the map of the query and cut its regions."""
    from ancd_ray.backbones.lite import Lite
    from ancd_ray.config.job import Job
    from ancd_ray.config.sections import MebinConfig
    from ancd_ray.data.images import read_bytes, read_header
    from ancd_ray.data.tables import decode_anomaly_map
    from ancd_ray.detectors.calibration import Calibration
    from ancd_ray.detectors.score_range import Range, find_cut
    from ancd_ray.stages.detect import score_images
    from ancd_ray.stages.regions import CutRegions

    config = Job.parse_detector(settings)
    scorer = config.make_scorer(Lite, {config.name_state(0): (folder / "state").read_bytes()})
    header = read_header(read_bytes(str(folder / "query.jpg")))
    row = make_row(folder / "query.jpg", header.width, header.height)
    start, begun = measure_peak(), time.perf_counter()
    maps, bad = score_images(scorer, [row])
    assert not bad, bad
    detected = time.perf_counter()
    calibration, high = Calibration.read((folder / "calibration").read_bytes()), maps[0]["score"]
    low = min(high, float(np.median(list(calibration.normal_scores.values()))))
    measured = Range(low, high, find_cut(calibration, "auto"))
    cutter = CutRegions(MebinConfig(keep="all"), measured, None, config.tile_size)
    regions, _, bad = cutter.cut([row], maps)
    assert not bad, bad
    ended, peak = time.perf_counter(), measure_peak()
    dots = json.loads((folder / "dots.json").read_text())
    hit = sum(any(r["x0"] <= x < r["x1"] and r["y0"] <= y < r["y1"] for r in regions) for x, y in dots)
    map_HW = decode_anomaly_map(maps[0])
    scale = map_HW.shape[0] / header.height
    around = max(1, round(16 * scale))
    near = [
        map_HW[max(0, int(y * scale) - around) :][: 2 * around, max(0, int(x * scale) - around) :][:, : 2 * around]
        for x, y in dots
    ]
    is_quiet = np.ones(map_HW.shape, bool)
    for x, y in dots:
        cv2.circle(is_quiet.view(np.uint8), (int(x * scale), int(y * scale)), round(100 * scale), 0, -1)
    highest = float(map_HW[is_quiet].max())
    above = sum(float(values.max()) > highest for values in near)
    return {
        "peak": peak,
        "start": start,
        "detect": detected - begun,
        "regions": ended - detected,
        "map": [maps[0]["height"], maps[0]["width"]],
        "boxes": len(regions),
        "side": int(np.median([r["x1"] - r["x0"] for r in regions])),
        "hit": hit,
        "above": above,
    }


def measure_peak() -> float:
    """Return the peak of resident memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
