"""Score regions: binarized maps against drawn masks, and pictures of images whose scores contradict their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from ancd_ray.data.images import BadImage, ImageU8, decode_mask, encode_png
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import Roi
from ancd_ray.data.roles import is_defect
from ancd_ray.data.sources import attach_range, has_mask, read_mask, read_rgb
from ancd_ray.engine.artifacts import Figures, Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage
from ancd_ray.method.crops import limit_side, square

PICTURED = 6  # images of either kind
PICTURE_SIDE = 256  # pixels


@dataclass(frozen=True)
class ScoreRegions(Stage):
    """Compares what was marked with what is known of labelled images."""

    name: ClassVar[str] = "score_regions"
    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = "images"

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table
        maps: Table
        region_masks: Table
        roi: Files | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        region_scores: Figures
        worst_images: Table

    def run(self, context: Context, inputs: In) -> Work:
        """Compute the quartiles of `iou` and `area_ratio`; None if no image has a mask."""
        figures: dict[str, Any] = {"compared": 0, "iou": None, "area_ratio": None}
        if not inputs.region_masks.num_rows:
            return Result({}, figures)
        roi = Roi.load(inputs.roi.read) if inputs.roi else None
        worker = CompareRegions(_choose_worst(inputs), PixelRange.find(inputs.images.values), roi)
        shards = align_shards({"images": inputs.images, "region_masks": inputs.region_masks}, count="region_masks")
        done = yield from context.map(worker, shards)
        result = Result.of_shards(done)
        overlaps = [part.read(context.folder, ["iou", "area_ratio"]) for part in result.tables["region_overlaps"]]
        figures["compared"] = sum(table.num_rows for table in overlaps)
        if figures["compared"]:
            for name in ("iou", "area_ratio"):
                values = np.concatenate([table.column(name).to_numpy() for table in overlaps])
                figures[name] = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return Result(result.tables, figures)


def _choose_worst(inputs: ScoreRegions.In) -> dict[str, float]:
    """Choose the defects with the lowest scores and the good images with the highest ones; returns scores by id."""
    images = inputs.images.read(["image_id", "label"]).to_pydict()
    labels = dict(zip(images["image_id"], images["label"], strict=True))
    maps = inputs.maps.read(["image_id", "score"]).to_pydict()
    scored = sorted(
        (score, image_id)
        for image_id, score in zip(maps["image_id"], maps["score"], strict=True)
        if labels[image_id] is not None
    )
    missed = [pair for pair in scored if is_defect(labels[pair[1]])][:PICTURED]
    alarms = [pair for pair in scored if not is_defect(labels[pair[1]])][-PICTURED:]
    return {image_id: score for score, image_id in (*missed, *alarms)}


@dataclass(frozen=True)
class CompareRegions:
    """Compares the binarized maps of a shard with masks; `worst` has the scores of the images that are pictured.

    What is drawn outside the region of interest does not count.
    """

    worst: Mapping[str, float]
    pixel_range: PixelRange | None = None
    roi: Roi | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `region_overlaps` and `worst_images`; what cannot be read is skipped."""
        from ancd_ray.method.metrics import mask_overlap

        images = {row["image_id"]: row for row in attach_range(shard.rows_of("images"), self.pixel_range)}
        overlaps, pictures = [], []
        for row in shard.rows_of("region_masks"):
            image = images[row["image_id"]]
            drawn = _read_drawn(image, self.roi)
            is_pictured = image["image_id"] in self.worst
            if drawn is None and not is_pictured:
                continue
            # not as regions are cut, where a map that is marked all over has an empty mask
            size = (image["width"], image["height"])
            found = cv2.resize(decode_mask(row["mask"]), size, interpolation=cv2.INTER_NEAREST)
            if drawn is not None:
                measured = mask_overlap(found, drawn)._asdict()
                overlaps.append({"image_id": image["image_id"], "product": image["product"], **measured})
            if is_pictured:
                pictures += self._make_picture(image, found, drawn)
        return ShardResult({"region_overlaps": overlaps, "worst_images": pictures})

    def _make_picture(self, image: Mapping[str, Any], found: ImageU8, drawn: ImageU8 | None) -> list[dict[str, Any]]:
        """Make the row of an image in `worst_images`; none if it cannot be read."""
        try:
            rgb = read_rgb(image)
        except BadImage:
            return []
        small, marked = limit_side(rgb, found, PICTURE_SIDE)
        row = {key: image[key] for key in ("image_id", "product", "uri", "label")}
        row |= {"score": self.worst[image["image_id"]], "image": encode_png(square(small))}
        row["found"] = encode_png(square(marked))
        row["drawn"] = None if drawn is None else encode_png(square(limit_side(drawn, drawn, PICTURE_SIDE)[1]))
        return [row]


def _read_drawn(image: Mapping[str, Any], roi: Roi | None) -> ImageU8 | None:
    """Read the mask of an image; None if there is none, it cannot be read, or nothing is drawn in the region."""
    if not has_mask(image):
        return None
    try:
        mask = read_mask(image)
    except BadImage:
        return None
    if roi is not None:
        mask = mask * roi.draw(mask.shape, mask.shape).view(np.uint8)
    return mask if mask.any() else None
