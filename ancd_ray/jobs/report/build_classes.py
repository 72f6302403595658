"""Collects the classes of a product for the report, with pictures of their regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.engine.artifacts import ArtifactSet, Table
from ancd_ray.jobs.identity.tables import ClassTitle
from ancd_ray.jobs.report import LEAST_CERTAIN, MOST_CERTAIN, ClassReport, GalleryItem


def build_classes(artifacts: ArtifactSet, titles: Sequence[ClassTitle]) -> list[ClassReport]:
    """Collect the classes with their galleries, the largest first."""
    predictions = artifacts.table("image_predictions")
    images = predictions.read(["label", "cls"]).group_by(["cls", "label"]).aggregate([([], "count_all")]).to_pylist()
    regions = artifacts.table("region_predictions").read(["region_id", "cls", "confidence"])
    cls, confidence = regions.column("cls").to_numpy(), regions.column("confidence").to_numpy().astype(np.float64)
    chosen = {index: select_extremes(np.flatnonzero(cls == index), confidence) for index in range(len(titles))}
    shown = [i for most, least in chosen.values() for i in (*most, *least)]
    ids = dict(zip(shown, regions.column("region_id").take(pa.array(shown, pa.int64())).to_pylist(), strict=True))
    crops = read_crops(artifacts.table("regions"), set(ids.values()))
    uri_of = read_uris(predictions, {crop["image_id"] for crop in crops.values()})

    def items(rows: Sequence[int]) -> list[GalleryItem]:
        return [build_item(crops[ids[i]], float(confidence[i]), uri_of[crops[ids[i]]["image_id"]]) for i in rows]

    found = []
    for index, title in enumerate(titles):
        own = {row["label"]: row["count_all"] for row in images if row["cls"] == index}
        labels = {label: n for label, n in own.items() if label}
        majority = max(sorted(labels), key=labels.__getitem__, default=None)
        most, least = chosen[index]
        found.append(
            ClassReport(
                index,
                title.name,
                title.id,
                images=sum(own.values()),
                regions=int((cls == index).sum()),
                majority_label=majority,
                purity=labels[majority] / sum(labels.values()) if majority else None,
                most_certain=items(most),
                least_certain=items(least),
            )
        )
    return sorted(found, key=lambda one: (-one.images, one.index))


def select_extremes(members: Any, confidence: Any) -> tuple[list[int], list[int]]:
    """Choose the most certain members and, of the rest, the least certain ones."""
    order = members[np.argsort(-confidence[members], kind="stable")]
    most, rest = order[:MOST_CERTAIN], order[MOST_CERTAIN:]
    return most.tolist(), rest[::-1][:LEAST_CERTAIN].tolist()


def read_crops(regions: Table, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Read the rows of some regions, part by part to bound memory; of parts without them only the ids."""
    found: dict[str, dict[str, Any]] = {}
    ids = pa.array(sorted(wanted), pa.string())
    for part in regions.parts:
        is_wanted = pc.is_in(regions.read_part(part, ["region_id"]).column("region_id"), value_set=ids)
        if pc.any(is_wanted).as_py():
            found |= {row["region_id"]: row for row in regions.read_part(part).filter(is_wanted).to_pylist()}
    return found


def read_uris(images: Table, wanted: set[str]) -> dict[str, str]:
    """Read the URIs of some images, part by part."""
    ids = pa.array(sorted(wanted), pa.string())
    tables = (images.read_part(part, ["image_id", "uri"]) for part in images.parts)
    found = (table.filter(pc.is_in(table.column("image_id"), value_set=ids)).to_pydict() for table in tables)
    return {image_id: uri for rows in found for image_id, uri in zip(rows["image_id"], rows["uri"], strict=True)}


def build_item(region: Mapping[str, Any], confidence: float, uri: str) -> GalleryItem:
    """Make the picture of a row of `regions` in a gallery."""
    box = (region["x0"], region["y0"], region["x1"], region["y1"])
    return GalleryItem(region["image"], region["mask"], confidence, uri, region["label"], box)
