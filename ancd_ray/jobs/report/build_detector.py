"""Collects what a report says of a detector from the results of its steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc

from ancd_ray.data.roles import is_defect
from ancd_ray.detectors.base import CALIBRATION
from ancd_ray.detectors.calibration import Calibration
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.jobs.report.detector_model import DetectorReport, ImageScores, Quartiles, UsualScores, WorstImage


def build_detector(artifacts: ArtifactSet) -> DetectorReport | None:
    """Collect what there is to say of the detector of a product; None if its maps are masks, which nobody scored."""
    if "map_scores" not in artifacts:
        return None
    of_maps, of_regions = artifacts.figures("map_scores"), artifacts.figures("region_scores")
    curve = of_maps.get("pro_curve")
    worst = _read_worst(artifacts)
    return DetectorReport(
        scores=_read_scores(artifacts),
        usual=_read_usual(artifacts),
        image_auroc=artifacts.figures("metrics")["image"]["detection_auroc"],
        pixel_auroc=of_maps["pixel_auroc"],
        aupro=of_maps["aupro"],
        pro_curve=(curve[0], curve[1]) if curve else None,
        compared=of_regions.get("compared", 0),
        iou=_to_quartiles(of_regions.get("iou")),
        area_ratio=_to_quartiles(of_regions.get("area_ratio")),
        missed=[image for image in worst if is_defect(image.label)],
        alarms=[image for image in reversed(worst) if not is_defect(image.label)],
    )


def _to_quartiles(values: list[float] | None) -> Quartiles | None:
    return (values[0], values[1], values[2]) if values else None


def _read_scores(artifacts: ArtifactSet) -> ImageScores:
    maps = artifacts.table("maps").read(["image_id", "score"])
    images = artifacts.table("images").read(["image_id", "label"])
    rows = pc.index_in(maps.column("image_id"), value_set=images.column("image_id").combine_chunks())
    labels = images.column("label").take(rows).to_pylist()
    is_labelled = len(labels) > 0 and None not in labels
    anomalous = np.array([is_defect(label) for label in labels]) if is_labelled else None
    return ImageScores(maps.column("score").to_numpy().astype(np.float32), anomalous)


def _read_usual(artifacts: ArtifactSet) -> UsualScores | None:
    """Read the scores of the calibration; None if it has none, as with a single image, or was not made."""
    if "calibration" not in artifacts:
        return None
    found = Calibration.read(artifacts.files("calibration").read(CALIBRATION))
    values = np.array([*(found.normal_scores or found.reference_scores).values()], np.float32)
    return UsualScores(values, bool(found.normal_scores)) if len(values) else None


def _read_worst(artifacts: ArtifactSet) -> list[WorstImage]:
    """Read the images whose scores contradict their labels, the lowest score first."""
    if "worst_images" not in artifacts:  # of a run of an earlier version
        return []
    table = artifacts.table("worst_images")
    rows: list[dict[str, Any]] = [row for part in table.parts for row in table.read_part(part).to_pylist()]
    rows.sort(key=lambda row: (row["score"], row["image_id"]))
    keys = ("image", "found", "drawn", "score", "uri", "label")
    return [WorstImage(**{key: row[key] for key in keys}) for row in rows]
