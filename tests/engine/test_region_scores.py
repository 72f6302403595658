"""Binarized maps against masks, and the images that are pictured, of one shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ancd_ray.data.images import encode_png
from ancd_ray.data.roi import Roi
from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import Shard, write_part
from ancd_ray.stages.regions import make_mask_row
from ancd_ray.stages.score_regions import PICTURE_SIDE, CompareRegions

HEIGHT, WIDTH = 300, 400
DRAWN = np.zeros((HEIGHT, WIDTH), np.uint8)
DRAWN[100:200, 100:300] = 255
TWICE = np.zeros((30, 40), np.uint8)  # the binarized map, a tenth of the size
TWICE[10:20, 10:30] = TWICE[20:30, 0:20] = 255
FOUND = {"exact": DRAWN[::10, ::10], "all": np.full((30, 40), 255, np.uint8)}


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """Three images with a mask, one whose mask cannot be read, one without a mask, and a good one."""
    folder = Folder(str(tmp_path))
    folder.write("image.png", encode_png(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)))
    folder.write("mask.png", encode_png(DRAWN))
    folder.write("broken.png", b"no picture")
    kinds = {
        "exact": ("hole", "mask.png"),
        "twice": ("hole", "mask.png"),
        "all": ("hole", "mask.png"),
        "broken": ("hole", "broken.png"),
        "undrawn": ("hole", None),
        "good": ("good", None),
    }
    images, masks = [], []
    for image_id, (label, mask) in kinds.items():
        row = {"image_id": image_id, "product": "p", "uri": f"{tmp_path}/image.png", "role": "query", "label": label}
        row |= {"width": WIDTH, "height": HEIGHT, "orientation": 1}
        row |= {"digest": folder.sha256("image.png"), "mask_uris": [f"{tmp_path}/{mask}"] if mask else None}
        images.append(row)
        masks.append(make_mask_row(row, FOUND.get(image_id, TWICE)))
    parts = {"images": images, "region_masks": masks}
    return Shard(0, {name: (folder, write_part(folder, name, 0, rows)) for name, rows in parts.items()}, len(masks))


def _decode(png: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_binarized_maps_are_compared_at_image_size(shard: Shard) -> None:
    found = CompareRegions({})(shard).tables
    overlaps = {row["image_id"]: (row["iou"], row["area_ratio"]) for row in found["region_overlaps"]}
    assert overlaps == {"exact": (1, 1), "twice": (0.5, 2), "all": (1 / 6, 6)}, "a mask that cannot be read is skipped"
    assert not found["worst_images"]


def test_pictures_show_what_was_marked_and_drawn(shard: Shard) -> None:
    rows = CompareRegions({"twice": 0.25, "undrawn": 0.5, "good": 0.75})(shard).tables["worst_images"]
    assert {row["image_id"]: (row["label"], row["score"]) for row in rows} == {
        "twice": ("hole", 0.25),
        "undrawn": ("hole", 0.5),
        "good": ("good", 0.75),
    }
    assert [row["drawn"] is None for row in rows] == [False, True, True]
    image, found, drawn = (_decode(rows[0][name]) for name in ("image", "found", "drawn"))
    assert image.shape == found.shape == drawn.shape == (PICTURE_SIDE, PICTURE_SIDE)
    assert np.count_nonzero(found) == pytest.approx(2 * np.count_nonzero(drawn), rel=0.05)


def test_an_image_that_is_gone_has_no_picture_but_its_overlap(shard: Shard, tmp_path: Path) -> None:
    (tmp_path / "image.png").unlink()
    found = CompareRegions({"twice": 0.25})(shard).tables
    assert not found["worst_images"]
    assert len(found["region_overlaps"]) == 3


def test_what_is_drawn_outside_the_region_of_interest_does_not_count(shard: Shard) -> None:
    columns = np.arange(WIDTH)
    half, beside = (Roi.of_mask(np.full_like(DRAWN, 255) * within) for within in (columns < 200, columns >= 300))
    overlaps = CompareRegions({}, roi=half)(shard).tables["region_overlaps"]
    assert {row["image_id"]: row["area_ratio"] for row in overlaps}["exact"] == 2, "half of the defect counts"
    assert not CompareRegions({}, roi=beside)(shard).tables["region_overlaps"], "a defect outside is not missed"
