"""Detect: an anomaly map for every image that is to be sorted into classes, and for those of the base set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ancd_ray.backbones.loaded import backbone
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import BadImage
from ancd_ray.data.store import Folder
from ancd_ray.detectors.base import AnomalyMap, DetectorConfig, FittedDetector, Scorer
from ancd_ray.engine.context import Context, quarantined
from ancd_ray.engine.outputs import Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load

_BATCH = 16  # images at once: bounds memory, fills the backbone


def run(context: Context, detector: DetectorConfig, backbone_config: BackboneConfig) -> Result:
    """Compute the tables `maps` and `quarantine`."""
    fitted = context.inputs.get("fit_detector")
    worker = Score(detector, backbone_config, fitted.folder if fitted else None)
    return Result.of_shards(context.map(worker, aligned({"images": context.inputs["catalog"]})))


@dataclass(frozen=True)
class Score:
    """Runs the detector over a shard of images."""

    detector: DetectorConfig
    backbone: BackboneConfig
    state: Folder | None

    @property
    def load(self) -> Load:
        """Whether the detector loads a model."""
        return self.detector.resources

    def __call__(self, shard: Shard) -> Work:
        """Compute the rows of `maps`; normal images get none."""
        images = [row for row in shard.rows_of("images") if row["role"] != "normal"]
        scorer = self._make_scorer()
        rows, bad = [], []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            for image, found in zip(batch, scorer.score(batch), strict=True):
                if isinstance(found, BadImage):
                    bad.append(quarantined(image, "detect", str(found)))
                else:
                    rows.append(map_row(image, found))
        return Work({"maps": rows, "quarantine": bad})

    def _make_scorer(self) -> Scorer:
        state = None
        if isinstance(self.detector, FittedDetector):
            assert self.state is not None
            state = self.state.read(self.detector.state_file)
        return self.detector.make_scorer(lambda: backbone(self.backbone), state)


def map_row(image: dict[str, Any], values: AnomalyMap) -> dict[str, Any]:
    """Make the row of a map: 8-bit maps as they are, others as float16; the score is taken before rounding."""
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


_FLOAT16_MAX = float(np.finfo(np.float16).max)
