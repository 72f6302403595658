"""The report of a job of `mode: classify`: classes with the pictures that were kept, quarantine, times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.load import dump_resolved
from ancd_ray.engine.executor import StepRun
from ancd_ray.engine.versions import read_versions
from ancd_ray.jobs.classify.classified import Classified, compare_labels, count_classes, join
from ancd_ray.jobs.identity.tables import ClassTitle
from ancd_ray.jobs.report import (
    ClassReport,
    ClusterScores,
    Counts,
    DetectorReport,
    ImageScores,
    ProductReport,
    RunReport,
    StageTime,
    group_quarantine,
)
from ancd_ray.jobs.report.build_classes import build_item, select_extremes

if TYPE_CHECKING:
    from ancd_ray.jobs.classify.plan import ClassificationPlan, ProductPlan
    from ancd_ray.jobs.classify.publish import Published


def build_report(
    plan: ClassificationPlan,
    pictured: Sequence[Classified],
    published: Published,
    steps: Sequence[StepRun],
    created_at: datetime,
    titles: Mapping[str, Sequence[ClassTitle]],
) -> RunReport:
    """Collect the content of the report: figures of the whole archive, and pictures of some of its partitions."""
    libraries = read_versions()
    products = [product.name for product in plan.products]
    quarantine = [
        row
        for name in products
        for row in published.read_rows("quarantine", ["uri", "stage", "reason"], name).to_pylist()
    ]
    images = sum(partition.left for product in plan.products for partition in product.partitions)
    regions = sum(published.count("region_predictions", products).values())
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
            _build_product(
                product, [each for each in pictured if each.product is product], published, titles[product.name]
            )
            for product in plan.products
        ],
    )


def _build_product(
    product: ProductPlan, pictured: Sequence[Classified], published: Published, titles: Sequence[ClassTitle]
) -> ProductReport:
    images = published.read_rows("image_predictions", ["label", "class_id", "is_unknown", "score"], product.name)
    regions = published.read_rows("region_predictions", ["class_id", "is_unknown", "confidence"], product.name)
    return ProductReport(
        name=product.name,
        image_level=ClusterScores(images.num_rows, **compare_labels(images)),
        region_level=ClusterScores(regions.num_rows),
        classes=_build_classes(product, pictured, images, regions, titles),
        detector=DetectorReport(ImageScores(images.column("score").to_numpy())),
        mean_confidence=float(np.mean(regions.column("confidence").to_numpy())) if regions.num_rows else None,
    )


def _build_classes(
    product: ProductPlan,
    pictured: Sequence[Classified],
    images: pa.Table,
    regions: pa.Table,
    titles: Sequence[ClassTitle],
) -> list[ClassReport]:
    """Collect the classes, the largest first, with the pictures of regions that were kept."""
    kept = set(join(pictured, "regions", ["region_id"]).column("region_id").to_pylist())
    uris = join(pictured, "image_predictions", ["image_id", "uri"])
    uri_of = dict(zip(*(uris.column(name).to_pylist() for name in ("image_id", "uri")), strict=True))
    predicted = join(pictured, "region_predictions", ["region_id", "image_id", "cls", "confidence"])
    cls, confidence = predicted.column("cls").to_numpy(), predicted.column("confidence").to_numpy()
    ids = predicted.column("region_id").to_pylist()
    has_picture = np.array([region_id in kept for region_id in ids], bool)
    chosen = []
    for index in range(len(titles)):
        most, least = select_extremes(np.flatnonzero((cls == index) & has_picture), confidence)
        # with another `keep`, pictures are of uncertain regions only, except for those of a discovery
        has_all = product.keep == "all" or product.discovered
        chosen.append((most, least) if has_all else ([], [*least, *most[::-1]]))
    shown = read_regions(pictured, {ids[i] for several in chosen for rows in several for i in rows})
    of_images, of_regions = count_classes(images), count_classes(regions)
    found = []
    for index, (own, title) in enumerate(zip(product.model.class_ids, titles, strict=True)):
        most_certain, least_certain = (
            [build_item(shown[ids[i]], float(confidence[i]), uri_of[shown[ids[i]]["image_id"]]) for i in rows]
            for rows in chosen[index]
        )
        counts = of_images[own], of_regions[own]
        found.append(
            ClassReport(index, title.name, own, *counts, most_certain=most_certain, least_certain=least_certain)
        )
    return sorted(found, key=lambda one: (-one.images, one.index))


def read_regions(classified: Sequence[Classified], wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Read the rows of some regions, part by part to bound memory."""
    values = pa.array(sorted(wanted), pa.string())
    parts = (part for each in classified for part in each.read_parts("regions"))
    found = (part.filter(pc.is_in(part.column("region_id"), value_set=values)).to_pylist() for part in parts)
    return {row["region_id"]: row for rows in found for row in rows}
