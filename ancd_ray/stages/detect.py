"""Detect: computes anomaly maps of the images to be classified, and of the base set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import BadImage
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.sources import attach_range
from ancd_ray.data.store import Folder
from ancd_ray.detectors.base import AnomalyMap, DetectorConfig, FittedDetector, Scorer
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, is_sampled, quarantine_row
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage

_BATCH = 16  # images per call of the scorer; bounds memory
_REFERENCE = 64  # approximate number of normal images that are scored at most: their cost is bounded
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Detect(Stage):
    """Computes anomaly maps; `backbone` is None if the detector does not use one."""

    name: ClassVar[str] = "detect"
    version: ClassVar[int] = 4

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table
        detector_state: Files | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        maps: Table
        normal_scores: Table

    detector: DetectorConfig
    backbone: BackboneConfig | None

    @property
    def resources(self) -> Resources:
        """Resources of the detector."""
        return self.detector.resources

    @property
    def reads(self) -> Sequence[str]:
        """Roles that it reads."""
        return ["images", "detector_state"] if isinstance(self.detector, FittedDetector) else ["images"]

    @property
    def makes(self) -> Sequence[str]:
        """Roles that it makes."""
        return ["maps", "normal_scores"] if isinstance(self.detector, FittedDetector) else ["maps"]

    def run(self, context: Context, inputs: In) -> Work:
        """Compute the tables `maps`, `normal_scores` and `quarantine`."""
        state, share = None, 0.0
        if inputs.detector_state:
            state = inputs.detector_state.folder
            share = _share_of_reference(int(inputs.detector_state.values["normals"]))
        worker = ScoreImages(self.detector, self.backbone, state, PixelRange.find(inputs.images.values), share)
        done = yield from context.map(worker, align_shards({"images": inputs.images}))
        return Result.of_shards(done)


@dataclass(frozen=True)
class ScoreImages:
    """Runs the detector on a shard of images.

    Parameters
    ----------
    detector, backbone
        The detector, and the backbone if it uses one.
    state
        Folder of the detector's state.
    pixel_range
        Range of deep images.
    share
        Share of the normal images that are scored, as a reference.
    """

    detector: DetectorConfig
    backbone: BackboneConfig | None
    state: Folder | None
    pixel_range: PixelRange | None = None
    share: float = 0.0

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `maps`, `normal_scores` and `quarantine`."""
        state = None
        if isinstance(self.detector, FittedDetector):
            assert self.state is not None
            state = self.state.read(self.detector.state_file)
        images = attach_range(shard.rows_of("images"), self.pixel_range)
        scorer = make_scorer(self.detector, self.backbone, state)
        rows, bad = score_images(scorer, [row for row in images if row["role"] != "normal"])
        if not isinstance(self.detector, FittedDetector):
            return ShardResult({"maps": rows, "quarantine": bad})
        chosen = [row for row in images if row["role"] == "normal" and is_sampled(row["image_id"], self.share)]
        scored, _ = score_images(scorer, chosen)  # one that cannot be read is quarantined by fit_detector
        reference = [{key: row[key] for key in ("image_id", "product", "score")} for row in scored]
        return ShardResult({"maps": rows, "normal_scores": reference, "quarantine": bad})


def _share_of_reference(n_normals: int) -> float:
    """Return the share of normal images that are scored; 0 for a single one, which has no others to compare with."""
    return min(1.0, _REFERENCE / n_normals) if n_normals > 1 else 0.0


def make_scorer(detector: DetectorConfig, backbone: BackboneConfig | None, state: bytes | None) -> Scorer:
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
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        for image, found in zip(batch, scorer.score(batch), strict=True):
            if isinstance(found, BadImage):
                bad.append(quarantine_row(image, "detect", str(found)))
            else:
                rows.append(make_map_row(image, found))
    return rows, bad


def make_map_row(image: Mapping[str, Any], values: AnomalyMap) -> dict[str, Any]:
    """Make the row of a map, stored as uint8 or float16; the score is computed before rounding."""
    stored = values if values.dtype == np.uint8 else np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)
    return {
        "image_id": image["image_id"],
        "product": image["product"],
        "score": float(values.max()),
        "map": stored.tobytes(),
        "dtype": str(stored.dtype),
        "height": values.shape[0],
        "width": values.shape[1],
    }
