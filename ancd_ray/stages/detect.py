"""Detect: computes anomaly maps of the images to be classified, and of the base set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import BadImage
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import Roi, apply_roi
from ancd_ray.data.sources import attach_range, divide_rows
from ancd_ray.data.store import Folder
from ancd_ray.detectors.base import AnomalyMap, DetectorConfig, Scorer, State
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, quarantine_row
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage

_BATCH, _PIXELS = 16, 64_000_000  # images and pixels per call of the scorer, except for a single larger image
TOP = 0.05  # share of the pixels of a map whose mean is `top_mean`
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Detect(Stage):
    """Computes anomaly maps; `backbone` is None if the detector does not use one."""

    name: ClassVar[str] = "detect"
    version: ClassVar[int] = 6

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table
        roi: Files | None = None
        detector_state: Files | None = None
        calibration: Files | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        maps: Table

    detector: DetectorConfig
    backbone: BackboneConfig | None

    @property
    def resources(self) -> Resources:
        """Resources of the detector."""
        return self.detector.resources

    def run(self, context: Context, inputs: In) -> Work:
        """Compute the tables `maps` and `quarantine`."""
        folders = [files.folder for files in (inputs.detector_state, inputs.calibration) if files]
        roi = Roi.load(inputs.roi.read) if inputs.roi else None
        worker = ScoreImages(self.detector, self.backbone, folders, PixelRange.find(inputs.images.values), roi)
        done = yield from context.map(worker, align_shards({"images": inputs.images}))
        return Result.of_shards(done)


@dataclass(frozen=True)
class ScoreImages:
    """Runs the detector on a shard of images.

    Parameters
    ----------
    detector, backbone
        The detector, and the backbone if it uses one.
    folders
        Folders with the files of the detector's state.
    pixel_range
        Range of deep images.
    roi
        Region of interest.
    """

    detector: DetectorConfig
    backbone: BackboneConfig | None
    folders: Sequence[Folder]
    pixel_range: PixelRange | None = None
    roi: Roi | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `maps` and `quarantine`."""
        images = attach_range(shard.rows_of("images"), self.pixel_range, self.roi)
        state = read_state(self.detector, self.folders)
        scorer = make_scorer(self.detector, self.backbone, state)
        rows, bad = score_images(scorer, [row for row in images if row["role"] != "normal"])
        return ShardResult({"maps": rows, "quarantine": bad})


def read_state(detector: DetectorConfig, folders: Sequence[Folder]) -> dict[str, bytes]:
    """Read the files of a detector's state that are in some folders; a calibration that is still made is in none."""
    found = {}
    for name in detector.state_files:
        place = next((folder for folder in folders if folder.exists(name)), None)
        if place is not None:
            found[name] = place.read(name)
    return found


def make_scorer(detector: DetectorConfig, backbone: BackboneConfig | None, state: State) -> Scorer:
    """Build the scorer of a detector from its state."""

    def load() -> Any:
        from ancd_ray.backbones.loaded import load_cached

        assert backbone is not None
        return load_cached(backbone)

    return detector.make_scorer(load, state)


def score_images(
    scorer: Scorer, images: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compute the rows of `maps` and `quarantine` of rows of `images`."""
    rows, bad = [], []
    for image, found in compute_maps(scorer, images):
        if isinstance(found, BadImage):
            bad.append(quarantine_row(image, "detect", str(found)))
        else:
            rows.append(make_map_row(image, found))
    return rows, bad


def compute_maps(
    scorer: Scorer, images: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], AnomalyMap | BadImage]]:
    """Compute the map of each row of `images` in order, or the reason why there is none, a few images at a time."""
    for batch in divide_rows(images, _BATCH, _PIXELS):
        for image, found in zip(batch, scorer.score(batch), strict=True):
            yield image, found if isinstance(found, BadImage) else _apply_roi(found, image)


def _apply_roi(found: AnomalyMap, image: Mapping[str, Any]) -> AnomalyMap | BadImage:
    try:
        return apply_roi(found, image.get("roi"), (image["height"], image["width"]))
    except BadImage as error:
        return error


def make_map_row(image: Mapping[str, Any], values: AnomalyMap) -> dict[str, Any]:
    """Make the row of a map, stored as uint8 or float16; scores are computed before rounding."""
    stored = values if values.dtype == np.uint8 else np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)
    return {
        "image_id": image["image_id"],
        "product": image["product"],
        "score": float(values.max()),
        "top_mean": average_top(values),
        "map": stored.tobytes(),
        "dtype": str(stored.dtype),
        "height": values.shape[0],
        "width": values.shape[1],
    }


def average_top(values: AnomalyMap) -> float:
    """Compute the mean of the highest 5 % of a map, which tells a wide and weak anomaly from none."""
    n_top = max(1, round(TOP * values.size))
    return float(np.partition(values, values.size - n_top, axis=None)[-n_top:].mean(dtype=np.float64))
