"""Calibrate: scores normal images and references, each left out of the detector's state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import BadImage
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import Roi
from ancd_ray.data.sources import attach_range
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import decode_anomaly_map
from ancd_ray.detectors.base import CALIBRATION, AnomalyMap, DetectorConfig, choose_references
from ancd_ray.detectors.calibration import CALIBRATED, Calibration, thin_map
from ancd_ray.detectors.fuse import fuse_maps, select_state
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards, write_part
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage
from ancd_ray.stages.detect import average_top, compute_maps, make_map_row, make_scorer, read_state


@dataclass(frozen=True)
class Calibrate(Stage):
    """Measures how high the scores of normal images are; `backbone` is None if the detector does not use one."""

    name: ClassVar[str] = "calibrate"
    version: ClassVar[int] = 2

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table
        roi: Files | None = None
        detector_state: Files | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        calibration: Files
        normal_scores: Table

    detector: DetectorConfig
    backbone: BackboneConfig | None

    @property
    def resources(self) -> Resources:
        """Resources of the detector."""
        return self.detector.resources

    def run(self, context: Context, inputs: In) -> Work:
        """Compute the maps of some images, and their scores."""
        listed = inputs.images.read(["image_id", "role", "map_uri"]).to_pylist()
        usable = [row for row in listed if row["map_uri"] is not None or not self.detector.reads_maps]
        roles = {row["image_id"]: row["role"] for row in usable}
        normals = choose_references((i for i, role in roles.items() if role == "normal"), CALIBRATED)
        if len(normals) < 2:  # a single one has no others to be compared with
            normals = frozenset()
        references = frozenset[str]()
        if not normals:
            references = choose_references((i for i, role in roles.items() if role == "query"), CALIBRATED)
        state = inputs.detector_state.folder if inputs.detector_state else None
        pixel_range, roi = PixelRange.find(inputs.images.values), Roi.load(inputs.roi.read) if inputs.roi else None
        worker = ScoreReferences(self.detector, self.backbone, state, normals | references, pixel_range, roi)
        done = yield from context.map(worker, align_shards({"images": inputs.images}))
        result = Result.of_shards(done)
        maps: list[dict[str, AnomalyMap]] = [{} for _ in self.detector.parts]
        for stored in result.tables.get("reference_maps", ()):
            for row in stored.read(context.folder).to_pylist():
                maps[row["part"]][row["image_id"]] = decode_anomaly_map(row)
        calibration, fused = _measure(maps, normals, references, roi is not None)
        data = calibration.write()
        context.folder.write(CALIBRATION, data)
        scores = [
            {"image_id": image_id, "product": context.product, "score": score, "top_mean": average_top(fused[image_id])}
            for image_id, score in calibration.normal_scores.items()
        ]
        tables = {**result.tables, "normal_scores": [write_part(context.folder, "normal_scores", 0, scores)]}
        return Result(tables, {"normals": len(scores)}, {CALIBRATION: hashlib.sha256(data).hexdigest()})


def _measure(
    maps: list[dict[str, AnomalyMap]], normals: frozenset[str], references: frozenset[str], has_roi: bool
) -> tuple[Calibration, Mapping[str, AnomalyMap]]:
    """Measure the maps of all parts of a detector; returns the maps of the whole detector, too."""
    parts = [_measure_maps(of_part, normals, references, has_roi) for of_part in maps]
    if len(parts) == 1:
        return parts[0], maps[0]
    scales = [part.scale for part in parts]
    shared = sorted(set.intersection(*(set(of_part) for of_part in maps)))
    fused = {image_id: fuse_maps([of_part[image_id] for of_part in maps], scales) for image_id in shared}
    return _measure_maps(fused, normals, references, has_roi, parts), fused


def _measure_maps(
    maps: Mapping[str, AnomalyMap],
    normals: frozenset[str],
    references: frozenset[str],
    has_roi: bool,
    parts: list[Calibration] | None = None,
) -> Calibration:
    if has_roi:  # what is outside has no scores
        maps = {image_id: values[values > 0] if (values > 0).any() else values for image_id, values in maps.items()}
    of_normals = {image_id: maps[image_id] for image_id in sorted(normals & maps.keys())}
    of_references = {image_id: maps[image_id] for image_id in sorted(references & maps.keys())}
    return Calibration.measure(of_normals, of_references, parts or [])


@dataclass(frozen=True)
class ScoreReferences:
    """Scores images of a shard with each part of the detector; `chosen` has their ids.

    `state` is the folder of the detector's state.
    """

    detector: DetectorConfig
    backbone: BackboneConfig | None
    state: Folder | None
    chosen: frozenset[str]
    pixel_range: PixelRange | None = None
    roi: Roi | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `reference_maps`; images that cannot be used are quarantined by other steps."""
        images = [row for row in shard.rows_of("images") if row["image_id"] in self.chosen]
        rows: list[dict[str, Any]] = []
        if images:
            images = attach_range(images, self.pixel_range, self.roi)
            state = read_state(self.detector, [self.state] if self.state else [])
            for i, part in enumerate(self.detector.parts):
                scorer = make_scorer(part, self.backbone, select_state(self.detector, state, i))
                for image, found in compute_maps(scorer, images):
                    if not isinstance(found, BadImage):
                        rows.append({**make_map_row(image, thin_map(found)), "part": i})
        return ShardResult({"reference_maps": rows})
