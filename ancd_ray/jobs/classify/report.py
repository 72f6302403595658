"""The report of a job of `mode: classify`: classes with the pictures that were kept, quarantine, times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.load import dump_resolved
from ancd_ray.engine.executor import StepRun
from ancd_ray.engine.versions import read_versions
from ancd_ray.jobs.classify.classified import Classified, compare_labels, join
from ancd_ray.jobs.report import (
    ClassReport,
    ClusterScores,
    Counts,
    ImageScores,
    ProductReport,
    RunReport,
    StageTime,
    group_quarantine,
)
from ancd_ray.jobs.report.build import build_item, select_extremes

if TYPE_CHECKING:
    from ancd_ray.jobs.classify.plan import ClassificationPlan, ProductPlan


def build_report(
    plan: ClassificationPlan, classified: Sequence[Classified], steps: Sequence[StepRun], created_at: datetime
) -> RunReport:
    """Collect the content of the report."""
    libraries = read_versions()
    quarantine = [row for each in classified for row in each.read("quarantine").to_pylist()]
    images = sum(each.partition.left for each in classified)
    regions = sum(each.read("region_predictions", ["image_id"]).num_rows for each in classified)
    return RunReport(
        job=plan.job.name,
        created_at=created_at,
        version=libraries.get("ancd-ray", ""),
        libraries=libraries,
        config=dump_resolved(plan.job),
        counts=Counts(images, regions, len(quarantine), 0),
        stages=[StageTime(step.name, step.product, step.cached, step.seconds, step.rows) for step in steps],
        quarantine=group_quarantine((row["uri"], row["stage"], row["reason"]) for row in quarantine),
        products=[
            _build_product(product, [each for each in classified if each.product is product])
            for product in plan.products
        ],
    )


def _build_product(product: ProductPlan, classified: Sequence[Classified]) -> ProductReport:
    images = join(classified, "image_predictions", ["image_id", "uri", "label", "cls", "score"])
    regions = join(classified, "region_predictions", ["region_id", "image_id", "cls", "confidence"])
    return ProductReport(
        name=product.name,
        image_level=ClusterScores(images.num_rows, **compare_labels(images)),
        region_level=ClusterScores(regions.num_rows),
        classes=_build_classes(product, classified, images, regions),
        scores=ImageScores(images.column("score").to_numpy()),
        mean_confidence=float(np.mean(regions.column("confidence").to_numpy())) if regions.num_rows else None,
    )


def _build_classes(
    product: ProductPlan, classified: Sequence[Classified], images: pa.Table, regions: pa.Table
) -> list[ClassReport]:
    """Collect the classes, the largest first, with the pictures of regions that were kept."""
    kept = set(join(classified, "regions", ["region_id"]).column("region_id").to_pylist())
    uri_of = dict(zip(*(images.column(name).to_pylist() for name in ("image_id", "uri")), strict=True))
    of_image, of_region = images.column("cls").to_numpy(), regions.column("cls").to_numpy()
    ids, confidence = regions.column("region_id").to_pylist(), regions.column("confidence").to_numpy()
    has_picture = np.array([region_id in kept for region_id in ids], bool)
    chosen = []
    for index in range(len(product.model.classes)):
        most, least = select_extremes(np.flatnonzero((of_region == index) & has_picture), confidence)
        # with another `keep`, pictures are of uncertain regions only, except for those of a discovery
        has_all = product.keep == "all" or product.discovered
        chosen.append((most, least) if has_all else ([], [*least, *most[::-1]]))
    shown = _read_regions(classified, {ids[i] for several in chosen for rows in several for i in rows})
    found = []
    for index, name in enumerate(product.model.classes):
        most_certain, least_certain = (
            [build_item(shown[ids[i]], float(confidence[i]), uri_of[shown[ids[i]]["image_id"]]) for i in rows]
            for rows in chosen[index]
        )
        counts = int((of_image == index).sum()), int((of_region == index).sum())
        found.append(ClassReport(index, name, *counts, most_certain=most_certain, least_certain=least_certain))
    return sorted(found, key=lambda one: (-one.images, one.index))


def _read_regions(classified: Sequence[Classified], wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Read the rows of some regions, part by part to bound memory."""
    values = pa.array(sorted(wanted), pa.string())
    parts = (part for each in classified for part in each.read_parts("regions"))
    found = (part.filter(pc.is_in(part.column("region_id"), value_set=values)).to_pylist() for part in parts)
    return {row["region_id"]: row for rows in found for row in rows}
