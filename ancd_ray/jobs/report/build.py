"""Fills the report and the summary of a run from the tables of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.job import Job
from ancd_ray.config.load import resolved
from ancd_ray.data.roles import GOOD
from ancd_ray.data.tables import matrix
from ancd_ray.engine.executor import StepRun, versions
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs.report import (
    ClassReport,
    ClusterScores,
    Confusion,
    Counts,
    EstimatedNumber,
    GalleryItem,
    ImageScores,
    ProductReport,
    RunReport,
    StageTime,
    TokenMap,
    embedding_2d,
    group_quarantine,
)
from ancd_ray.method.metrics import confusion

MOST_CERTAIN, LEAST_CERTAIN = 12, 6  # regions of a class that the gallery shows
MAP_POINTS = 3000  # regions on the map of class tokens

Outputs = Mapping[str, Output]  # of one product, by step


def summary(job: Job, runs: Sequence[StepRun]) -> dict[str, Any]:
    """What `summary.json` says; figures that need labels are null without them."""
    by_product = outputs_of(runs)
    results = []
    for product in job.data.products:
        values = by_product[product.name]["evaluate"].values
        for level in ("image", "region"):
            figures = {key: values[level][key] for key in ("nmi", "ari", "f1", "n")}
            results.append({"product": product.name, "level": level, **figures})
    counts = counts_of(job, by_product)
    return {
        "job": job.name,
        "results": results,
        "images": counts.images,
        "regions": counts.regions,
        "quarantined": counts.quarantined,
        "stages": [
            {"name": run.name, "product": run.product, "cached": run.cached, "seconds": run.seconds} for run in runs
        ],
        "versions": versions(),
    }


def outputs_of(runs: Sequence[StepRun]) -> dict[str, dict[str, Output]]:
    """Product → step → output."""
    found: dict[str, dict[str, Output]] = {}
    for run in runs:
        found.setdefault(run.product, {})[run.name] = run.output
    for outputs in found.values():
        if "cluster" in outputs:  # it does what training and classification do together
            outputs["train"] = outputs["classify"] = outputs["cluster"]
    return found


def quarantine_rows(outputs: Outputs) -> Iterator[dict[str, Any]]:
    """Everything of a product that was set aside, in the order of the steps."""
    for output in outputs.values():
        yield from output.table("quarantine").to_pylist()


def counts_of(job: Job, by_product: Mapping[str, Outputs]) -> Counts:
    """Sizes over all products: images to be sorted, of which `quarantined` could not be; the base set apart."""
    images = regions = quarantined = 0
    for product in job.data.products:
        outputs = by_product[product.name]
        roles = outputs["catalog"].table("listing", ["role"]).column("role").to_pylist()
        images += roles.count("query")
        regions += outputs["regions"].rows("regions")
        quarantined += sum(row["role"] == "query" for row in quarantine_rows(outputs))
    base = by_product.get(job.data.base.name) if job.data.base else None  # clusterings leave it alone
    return Counts(images, regions, quarantined, base["regions"].rows("regions") if base else 0)


def run_report(job: Job, runs: Sequence[StepRun], created_at: datetime) -> RunReport:
    """All that the report shows."""
    by_product = outputs_of(runs)
    rows = [row for outputs in by_product.values() for row in quarantine_rows(outputs)]
    libraries = versions()
    return RunReport(
        job=job.name,
        created_at=created_at,
        version=libraries.get("ancd-ray", ""),
        libraries=libraries,
        config=resolved(job),
        counts=counts_of(job, by_product),
        stages=[StageTime(run.name, run.product, run.cached, run.seconds, run.rows) for run in runs],
        quarantine=group_quarantine((row["uri"], row["stage"], row["reason"]) for row in rows),
        products=[_product(product.name, by_product[product.name]) for product in job.data.products],
    )


def _product(name: str, outputs: Outputs) -> ProductReport:
    values, trained = outputs["evaluate"].values, outputs["train"].values
    image, region, pixel = values["image"], values["region"], values.get("pixel", {})
    names = class_names(trained)
    return ProductReport(
        name=name,
        image_level=ClusterScores(image["n"], image["nmi"], image["ari"], image["f1"]),
        region_level=ClusterScores(region["n"], region["nmi"], region["ari"], region["f1"]),
        classes=_classes(outputs, names),
        scores=_scores(outputs),
        normal_precision=image["normal_precision"],
        normal_recall=image["normal_recall"],
        map_auroc=pixel.get("auroc"),
        map_aupro=pixel.get("aupro"),
        silhouette=region["silhouette"],
        mean_confidence=region["mean_confidence"],
        head_agreement=region["head_agreement"],
        losses=trained["losses"],
        confusion=_confusion(outputs, names),
        token_map=_token_map(outputs),
        estimated=_estimated(outputs),
    )


def _estimated(outputs: Outputs) -> EstimatedNumber | None:
    """What is known of the number of classes, where it was estimated."""
    if not (step := outputs.get("count_classes")):
        return None
    values = step.values
    curve = list(zip(values["numbers"], values["silhouette"], values["stability"], strict=True))
    return EstimatedNumber(values["n_classes"], values["confidence"], curve, values.get("warning"))


def class_names(trained: Mapping[str, Any]) -> list[str]:
    """Names of the discovered classes; the first one means "normal" where there is such a class."""
    names = [f"class {i}" for i in range(trained["n_novel"])]
    return ["normal", *names[1:]] if trained["has_normal"] else names


def _scores(outputs: Outputs) -> ImageScores:
    maps = outputs["detect"].table("maps", ["image_id", "score"]).to_pydict()
    images = outputs["catalog"].table("images", ["image_id", "label"]).to_pydict()
    label = dict(zip(images["image_id"], images["label"], strict=True))
    labels = [label[image_id] for image_id in maps["image_id"]]
    anomalous = None if None in labels or not labels else np.array([name != GOOD for name in labels])
    return ImageScores(np.array(maps["score"], np.float32), anomalous)


def _confusion(outputs: Outputs, names: Sequence[str]) -> Confusion | None:
    predictions = outputs["merge"].table("image_predictions", ["label", "cls"]).to_pydict()
    pairs = [
        (label, cls) for label, cls in zip(predictions["label"], predictions["cls"], strict=True) if label is not None
    ]
    if not pairs:
        return None
    labels, clusters, counts = confusion(np.array([label for label, _ in pairs]), np.array([cls for _, cls in pairs]))
    return Confusion(np.asarray(counts), [str(label) for label in labels], [names[int(cls)] for cls in clusters])


def _classes(outputs: Outputs, names: Sequence[str]) -> list[ClassReport]:
    """Every class with its gallery, the largest first."""
    images = outputs["merge"].table("image_predictions", ["image_id", "uri", "label", "cls"]).to_pydict()
    uri_of = dict(zip(images["image_id"], images["uri"], strict=True))
    columns = ["region_id", "image_id", "cls", "confidence"]
    regions = outputs["classify"].table("region_predictions", columns).to_pydict()
    cls, confidence = np.array(regions["cls"], int), np.array(regions["confidence"])
    chosen = {index: _extremes(np.flatnonzero(cls == index), confidence) for index in range(len(names))}
    wanted = {regions["region_id"][i] for most, least in chosen.values() for i in (*most, *least)}
    crops = _crops(outputs["regions"], wanted)

    def items(rows: Sequence[int]) -> list[GalleryItem]:
        return [
            _item(crops[regions["region_id"][i]], float(confidence[i]), uri_of[regions["image_id"][i]]) for i in rows
        ]

    found = []
    for index, name in enumerate(names):
        labels = [label for label, one in zip(images["label"], images["cls"], strict=True) if one == index and label]
        majority = max(sorted(set(labels)), key=labels.count, default=None)
        most, least = chosen[index]
        found.append(
            ClassReport(
                index,
                name,
                images=images["cls"].count(index),
                regions=int((cls == index).sum()),
                majority_label=majority,
                purity=labels.count(majority) / len(labels) if majority else None,
                most_certain=items(most),
                least_certain=items(least),
            )
        )
    return sorted(found, key=lambda one: (-one.images, one.index))


def _extremes(members: Any, confidence: Any) -> tuple[list[int], list[int]]:
    """The most and, of the rest, the least certain members."""
    order = members[np.argsort(-confidence[members], kind="stable")]
    most, rest = order[:MOST_CERTAIN], order[MOST_CERTAIN:]
    return most.tolist(), rest[::-1][:LEAST_CERTAIN].tolist()


def _crops(output: Output, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The rows of some regions; part by part, so that a large archive does not come into memory."""
    found: dict[str, dict[str, Any]] = {}
    for part in output.parts("regions"):
        table = output.folder.read_table(part.file)
        hits = table.filter(pc.is_in(table.column("region_id"), value_set=pa.array(sorted(wanted), pa.string())))
        found |= {row["region_id"]: row for row in hits.to_pylist()}
    return found


def _item(region: Mapping[str, Any], confidence: float, uri: str) -> GalleryItem:
    box = (region["x0"], region["y0"], region["x1"], region["y1"])
    return GalleryItem(region["image"], region["mask"], confidence, uri, region["label"], box)


def _token_map(outputs: Outputs) -> TokenMap | None:
    columns = ["image_id", "embedding", "cls", "confidence", "label"]
    regions = outputs["classify"].table("region_predictions", columns)
    if regions.num_rows < 3:
        return None
    chosen = np.linspace(0, regions.num_rows - 1, min(regions.num_rows, MAP_POINTS)).astype(int)
    sample = regions.take(chosen)
    images = outputs["merge"].table("image_predictions", ["image_id", "uri"]).to_pydict()
    uri_of = dict(zip(images["image_id"], images["uri"], strict=True))
    rows = sample.select(["image_id", "confidence", "label"]).to_pylist()
    hover = [f"{uri_of[row['image_id']].rpartition('/')[2]} · {row['confidence']:.2f}" for row in rows]
    labels = [row["label"] for row in rows]
    known = labels if any(label is not None for label in labels) else None
    return TokenMap(
        embedding_2d(matrix(sample.column("embedding")), seed=0), sample.column("cls").to_numpy(), hover, known
    )
