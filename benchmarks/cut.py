"""Binarize, crop and encode in memory, compared with a literal loop that writes files between the operations.

python benchmarks/cut.py                       # generated images of the size of magnetic tiles
python benchmarks/cut.py --images /archive/mtd # every tenth image below a folder, with a map made of its mask
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
from literal import cut_with_files
from mebin import realistic
from PIL import Image
from timing import compare, describe_machine, format_time

from ancd_ray.config.sections import MebinConfig
from ancd_ray.data.images import decode_rgb, encode_png
from ancd_ray.detectors.score_range import Range
from ancd_ray.stages.regions import CutRegions

COUNT, LO, HI = 60, 60.0, 255.0


def main() -> None:
    """Print the times per image of both forms and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = _public(given.images, folder) if given.images else _generated(folder)
        worker = CutRegions(MebinConfig(), Range(LO, HI))

        def fast() -> int:
            cut = 0
            for image, map_ in pairs:
                row = {"image_id": "0" * 20, "product": "p", "role": "novel", "label": None}
                values = cv2.imread(str(map_), cv2.IMREAD_GRAYSCALE)
                cut += len(worker._cut_image(row, decode_rgb(image.read_bytes()), values)[0])
            return cut

        def slow() -> int:
            return sum(cut_with_files(image, map_, LO, HI, folder) for image, map_ in pairs)

        assert fast() == slow()
        pair = compare(fast, slow)
    print(describe_machine())
    print(
        f"{len(pairs)} images: {format_time(pair.slow / len(pairs))} per image with files, "
        f"{format_time(pair.fast / len(pairs))} in memory, {pair.ratio:.1f}×"
    )


def _generated(folder: Path) -> list[tuple[Path, Path]]:
    """Generate gray tiles of about 290 x 370 pixels, with maps of their size."""
    pairs = []
    for i in range(COUNT):
        rng = np.random.default_rng(i)
        height, width = int(rng.integers(230, 400)), int(rng.integers(180, 330))
        grey = cv2.resize(rng.integers(60, 200, (height // 4, width // 4)).astype(np.uint8), (width, height))
        image, map_ = folder / f"{i}.jpg", folder / f"{i}-map.png"
        Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(image, quality=95)
        map_.write_bytes(encode_png(cv2.resize(realistic(512, i)[0], (width, height), interpolation=cv2.INTER_AREA)))
        pairs.append((image, map_))
    return pairs


def _public(root: Path, folder: Path) -> list[tuple[Path, Path]]:
    pairs = []
    for image in sorted(root.rglob("*.jpg"))[::10]:
        mask = cv2.imread(str(image.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
        rng = np.random.default_rng(len(pairs))
        ground = cv2.GaussianBlur(rng.integers(0, 120, mask.shape).astype(np.uint8), (0, 0), 3)
        values = np.maximum(ground, cv2.GaussianBlur(mask, (0, 0), 4))
        map_ = folder / f"{len(pairs)}-map.png"
        map_.write_bytes(encode_png(values))
        pairs.append((image, map_))
    return pairs


if __name__ == "__main__":
    main()
