"""Regions: binarizes anomaly maps (MEBin, Section III-B) and cuts the sub-images around their main elements.

Two passes: the score range of the whole product (a scan of one column), then the images, independently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.config.sections import MebinConfig
from ancd_ray.data.images import BadImage, ImageU8, encode_png
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import Roi
from ancd_ray.data.roles import GOOD
from ancd_ray.data.sources import attach_range, has_mask, read_rgb
from ancd_ray.data.tables import decode_anomaly_map
from ancd_ray.detectors.base import CALIBRATION
from ancd_ray.detectors.calibration import Calibration
from ancd_ray.detectors.score_range import Range, find_cut, measure_score_range, warn_of_range
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, StageError, quarantine_row
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage
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
from ancd_ray.method.thresholds import exceed_normal, threshold_mask

STORED_SIDE = 256  # pixels of a sub-image, from which views are made


@dataclass(frozen=True)
class Regions(Stage):
    """Cuts sub-images around anomalous regions; `from_masks`: the maps are masks and are not binarized."""

    name: ClassVar[str] = "regions"
    version: ClassVar[int] = 7
    resources: ClassVar[Resources] = "images"

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table
        maps: Table
        normal_scores: Table | None = None
        calibration: Files | None = None
        roi: Files | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        regions: Table
        region_masks: Table

    mebin: MebinConfig
    from_masks: bool
    tile: int | None = None  # side of the detector's tiles, pixels of the image

    @property
    def reads(self) -> Sequence[str]:
        """Roles that it reads."""
        is_calibrated = self.mebin.binarize in ("auto", "calibrated")
        return ["images", "maps", "normal_scores", "roi", *(["calibration"] if is_calibrated else [])]

    def run(self, context: Context, inputs: In) -> Work:
        """Measure the score range, then binarize and crop every image.

        Raises
        ------
        StageError
            Binarization is calibrated, and there is nothing to calibrate it with.
        """
        measured = None if self.from_masks else self._measure(inputs, context.product)
        warning = warn_of_range(measured, self.mebin, _knows_normal(inputs)) if measured else None
        if warning:
            context.progress.note(warning)
        values: dict[str, Any] = {"range": list(astuple(measured)) if measured else None, "warning": warning}
        shards = align_shards({"images": inputs.images, "maps": inputs.maps}, count="maps")
        pixel_range, roi = PixelRange.find(inputs.images.values), Roi.load(inputs.roi.read) if inputs.roi else None
        worker = CutRegions(self.mebin, measured, pixel_range, self.tile, roi)
        done = yield from context.map(worker, shards)
        return Result.of_shards(done, values)

    def _measure(self, inputs: In, product: str) -> Range:
        """Measure the range of the scores, and with a calibration the cut."""
        score_I, known = _read_scores(inputs.maps), inputs.normal_scores
        measured = measure_score_range(score_I, self.mebin, _read_scores(known) if known else None)
        if inputs.calibration is None:
            return measured
        try:
            cut = find_cut(Calibration.read(inputs.calibration.read(CALIBRATION)), self.mebin.binarize)
        except ValueError as error:
            raise StageError(f"product {product}: {error}; take mebin.binarize=mebin") from error
        return replace(measured, cut=cut)


def _read_scores(table: Table) -> NDArray[np.floating[Any]]:
    return np.asarray(table.read(["score"]).column("score").to_numpy())


def _knows_normal(inputs: Regions.In) -> bool:
    """Return whether an image is known to be normal: by its label, or because the detector was calibrated with it."""
    if inputs.normal_scores and inputs.normal_scores.num_rows:
        return True
    return bool(pc.any(pc.equal(inputs.images.read(["label"]).column("label"), GOOD)).as_py())


@dataclass(frozen=True)
class CutRegions:
    """Cuts the sub-images of a shard.

    Parameters
    ----------
    config
        Settings.
    measured
        Range of the scores; None if the maps are masks.
    pixel_range
        Range of deep images.
    tile
        Side of the detector's tiles, which limits what crops are relative to.
    roi
        Region of interest; an image without a main element is cut to its box.
    """

    config: MebinConfig
    measured: Range | None
    pixel_range: PixelRange | None = None
    tile: int | None = None
    roi: Roi | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `regions`, of `region_masks` and of `quarantine`."""
        maps = shard.table("maps")
        one_by_one = (maps.slice(i, 1).to_pylist()[0] for i in range(maps.num_rows))  # together they may be gigabytes
        rows, masks, bad = self.cut(attach_range(shard.rows_of("images"), self.pixel_range), one_by_one)
        return ShardResult({"regions": rows, "region_masks": masks, "quarantine": bad})

    def cut(
        self, image_rows: Iterable[Mapping[str, Any]], map_rows: Iterable[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Compute the rows of `regions`, one or more of every image with a map, `region_masks` and `quarantine`."""
        images = {image["image_id"]: image for image in image_rows}
        rows: list[dict[str, Any]] = []
        masks, bad = [], []
        for row in map_rows:
            image = images[row["image_id"]]
            try:
                rgb = read_rgb(image)
                found, mask = self._cut_image(image, rgb, decode_anomaly_map(row))
            except BadImage as error:
                bad.append(quarantine_row(image, "regions", str(error)))
                continue
            rows += found
            if self.measured is not None and (image["label"] is not None or has_mask(image)):
                masks.append(make_mask_row(image, mask))
        return rows, masks, bad

    def _cut_image(
        self, image: Mapping[str, Any], rgb: ImageU8, values: NDArray[Any]
    ) -> tuple[list[dict[str, Any]], ImageU8]:
        """Compute the rows of `regions` of an image, and its binarized map."""
        height, width = rgb.shape[:2]
        binarized, n_regions = self._binarize(values)
        mask, boxes = self._find_boxes(binarized, n_regions, height, width)
        rows = []
        for number, box in enumerate(boxes):
            score = float(values.max() > 0) if self.measured is None else self._score_box(values, box, height, width)
            rows.append(make_region_row(image, number, box, score, rgb, mask))
        return rows, binarized

    def _find_boxes(self, binarized: ImageU8, n_regions: int, height: int, width: int) -> tuple[ImageU8, list[Box]]:
        """Compute the mask at image size and the square boxes around its main elements."""
        params = CropParams(
            self.config.padding,
            self.config.min_crop,
            self.config.merge_gap,
            self.config.relative_to,
            self.config.keep,
            self.config.max_enlargement,
            self.tile,
        )
        mask = binarized if self.measured is None else mask_to_image_size(binarized, height, width)
        whole = Box(0, 0, width, height)
        boxes = [whole]
        if self.config.crop != "image":
            boxes = mask_boxes(mask, params) if self.measured is None else region_boxes(mask, n_regions, params)
        if self.roi is not None and boxes == [whole]:
            boxes = [Box(*(self.roi.find_box((height, width)) or whole))]
        return mask, boxes

    def _binarize(self, values: NDArray[Any]) -> tuple[ImageU8, int]:
        """Binarize a map, unless it is a mask; returns the mask at the map's size and the number of its regions."""
        if self.measured is None:
            return values, 0
        low, high = self.measured.low, self.measured.high
        if self.measured.cut is not None:
            return exceed_normal(values, self.measured.cut)
        if self.config.binarize in ("otsu", "fixed"):
            return threshold_mask(values, low, high, self.config.binarize, self.config.threshold)
        found = binarize(values, low, high, make_mebin_params(self.config))
        return found.mask, found.n_regions

    def _score_box(self, values: NDArray[Any], box: Box, height: int, width: int) -> float:
        assert self.measured is not None
        return region_score(values, box, height, width, self.measured.low, self.measured.high)


def make_mebin_params(config: MebinConfig) -> MebinParams:
    """Return the parameters of MEBin of a config."""
    return MebinParams(config.levels, config.min_run, config.erosion_px, config.count_rule, config.erode)


def make_mask_row(image: Mapping[str, Any], mask: ImageU8) -> dict[str, Any]:
    """Make the row of `region_masks` of a binarized map."""
    return {"image_id": image["image_id"], "product": image["product"], "mask": encode_png(mask)}


def make_region_row(
    image: Mapping[str, Any], number: int, box: Box, score: float, rgb: ImageU8, mask: ImageU8
) -> dict[str, Any]:
    """Make a row of `regions` with the sub-image of a box, square and at most 256 px wide."""
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
