"""Regions: binarizes anomaly maps (MEBin, Section III-B) and cuts the sub-images around their main elements.

Two passes: the range of the scores over the whole product (a scan of one column), then every image by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.config.sections import MebinConfig
from ancd_ray.data.images import BadImage, ImageU8, decode_rgb, encode_png
from ancd_ray.data.sources import read_image
from ancd_ray.data.tables import map_of
from ancd_ray.engine.context import Context, quarantined
from ancd_ray.engine.outputs import Output, Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load
from ancd_ray.method.crops import (
    Box,
    CropParams,
    crop,
    limit_side,
    mask_boxes,
    mask_to_image_size,
    region_boxes,
    region_score,
    square,
)
from ancd_ray.method.mebin import MebinParams, binarize
from ancd_ray.method.thresholds import threshold_mask

STORED_SIDE = 256  # pixels: what views start from; the original stays in the archive
CUTS_TOO_MUCH = 0.5  # a smallest score above this share of the largest: no image of the set looks normal


@dataclass(frozen=True)
class Range:
    """The range of the scores over a product: what the levels of binarization are spread over."""

    low: float
    high: float


def run(context: Context, config: MebinConfig, from_masks: bool) -> Result:
    """The tables `regions` and `quarantine`; `from_masks`: the maps are masks and are cut as they stand."""
    maps = context.inputs["detect"]
    measured = None if from_masks else score_range(maps, config)
    values: dict[str, Any] = {"range": [measured.low, measured.high] if measured else None, "warning": None}
    if (
        measured
        and config.range == "measured"
        and config.floor is None
        and measured.low > CUTS_TOO_MUCH * measured.high
    ):
        values["warning"] = (
            f"the lowest image score is {measured.low:.3g}, the highest {measured.high:.3g}: no image looks normal, so "
            "regions may come out too small; set mebin.floor to the score of a normal image"
        )
        context.progress.note(values["warning"])
    worker = CutRegions(config, measured)
    done = context.map(worker, aligned({"images": context.inputs["catalog"], "maps": maps}, count="maps"))
    return Result.of_shards(done, values)


def score_range(maps: Output, config: MebinConfig) -> Range:
    """[min, max] over the images of a product of the maximum of their maps (Section III-B), or what the job fixes."""
    if config.range != "measured":
        return Range(*config.range)
    scores = maps.table("maps", ["score"]).column("score")
    found = pc.min_max(scores).as_py()
    low, high = float(found["min"] or 0.0), float(found["max"] or 0.0)
    return Range(low if config.floor is None else min(config.floor, high), high)


@dataclass(frozen=True)
class CutRegions:
    """Sub-images of a shard of images; `measured` None: the maps are masks."""

    config: MebinConfig
    measured: Range | None
    load: ClassVar[Load] = "images"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `regions`: at least one for every usable image."""
        maps = {row["image_id"]: row for row in shard.rows_of("maps")}
        rows: list[dict[str, Any]] = []
        bad = []
        for image in shard.rows_of("images"):
            if image["image_id"] not in maps:
                continue  # set aside by the detect step, or normal
            try:
                rgb = decode_rgb(read_image(image))
                found = list(self._regions(image, rgb, map_of(maps[image["image_id"]])))
            except BadImage as error:
                bad.append(quarantined(image, "regions", str(error)))
                continue
            rows += found
        return Work({"regions": rows, "quarantine": bad})

    def _regions(self, image: Mapping[str, Any], rgb: ImageU8, values: NDArray[Any]) -> Iterator[dict[str, Any]]:
        height, width = rgb.shape[:2]
        mask, boxes = self._boxes(values, height, width)
        for number, box in enumerate(boxes):
            score = float(values.max() > 0) if self.measured is None else self._score(values, box, height, width)
            yield region_row(image, number, box, score, rgb, mask)

    def _boxes(self, values: NDArray[Any], height: int, width: int) -> tuple[ImageU8, list[Box]]:
        """The mask at image size and the squares around its main elements."""
        params = CropParams(self.config.padding, self.config.min_crop, self.config.merge_gap, self.config.keep)
        if self.measured is None:
            mask, n_regions = values, 0
        else:
            found, n_regions = self._binarized(values, self.measured)
            mask = mask_to_image_size(found, height, width)
        if self.config.crop == "image":
            return mask, [Box(0, 0, width, height)]
        return mask, mask_boxes(mask, params) if self.measured is None else region_boxes(mask, n_regions, params)

    def _binarized(self, values: NDArray[Any], measured: Range) -> tuple[ImageU8, int]:
        """The mask at the map's size and the number of its regions."""
        if self.config.binarize != "mebin":
            return threshold_mask(values, measured.low, measured.high, self.config.binarize, self.config.threshold)
        found = binarize(values, measured.low, measured.high, mebin_params(self.config))
        return found.mask, found.n_regions

    def _score(self, values: NDArray[Any], box: Box, height: int, width: int) -> float:
        assert self.measured is not None
        return region_score(values, box, height, width, self.measured.low, self.measured.high)


def mebin_params(config: MebinConfig) -> MebinParams:
    """The constants of binarization."""
    return MebinParams(config.levels, config.min_run, config.erosion_px, config.count_rule, config.erode)


def region_row(
    image: Mapping[str, Any], number: int, box: Box, score: float, rgb: ImageU8, mask: ImageU8
) -> dict[str, Any]:
    """A row of `regions`: the sub-image of a box, square and at most 256 px wide."""
    image_crop, mask_crop = crop(rgb, box), crop(mask, box)
    area = int(np.count_nonzero(mask_crop))
    image_crop, mask_crop = limit_side(image_crop, mask_crop, STORED_SIDE)
    return {
        "region_id": f"{image['image_id']}-{number:03d}",
        **{key: image[key] for key in ("image_id", "product", "role", "label")},
        **{"x0": box.x0, "y0": box.y0, "x1": box.x1, "y1": box.y1},
        "area": area,
        "score": score,
        "image": encode_png(square(image_crop)),
        "mask": encode_png(square(mask_crop)),
    }
