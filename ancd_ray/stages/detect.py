"""Detect: an anomaly map for every image that is to be sorted into classes (and, from its masks, for the base set)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ancd_ray.backbones.loaded import backbone, device
from ancd_ray.config.job import Backbone, Detector, GroundTruth, PatchCore, Precomputed
from ancd_ray.data.images import BadImage
from ancd_ray.data.store import Folder
from ancd_ray.detectors import base, ground_truth, patchcore, precomputed
from ancd_ray.engine.context import Context, quarantined
from ancd_ray.engine.outputs import Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load

_BATCH = 16  # images at once: bounds memory, fills the trunk


def run(context: Context, detector: Detector, trunk: Backbone) -> Result:
    """The tables `maps` and `quarantine`."""
    fitted = context.inputs.get("fit_detector")
    worker = Score(detector, trunk, fitted.folder if fitted else None)
    return Result.of_shards(context.map(worker, aligned({"images": context.inputs["catalog"]})))


@dataclass(frozen=True)
class Score:
    """The detector over a shard of images."""

    detector: Detector
    trunk: Backbone
    state: Folder | None

    @property
    def load(self) -> Load:
        """Reading maps from files needs no model."""
        return "model" if isinstance(self.detector, PatchCore) else "images"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `maps`; the normal images have done their duty and get none."""
        images = [row for row in shard.rows_of("images") if row["role"] != "normal"]
        detector = self._make()
        rows, bad = [], []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            for image, found in zip(batch, detector.score(batch), strict=True):
                if isinstance(found, BadImage):
                    bad.append(quarantined(image, "detect", str(found)))
                else:
                    rows.append(map_row(image, found))
        return Work({"maps": rows, "quarantine": bad})

    def _make(self) -> base.Detector:
        if isinstance(self.detector, GroundTruth):
            return ground_truth.GroundTruth()
        if isinstance(self.detector, Precomputed):
            return precomputed.Precomputed(self.detector)
        assert self.state is not None
        banks = patchcore.unpacked(self.state.read("memory_bank.safetensors"))
        return patchcore.PatchCore(patchcore.Patches(backbone(self.trunk), self.detector, device()), banks)


def map_row(image: dict[str, Any], values: base.AnomalyMap) -> dict[str, Any]:
    """The row of a map: 8-bit maps as they are, others as float16; the score is taken before rounding."""
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
