"""Builds the report and the summary of a run from the results of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import column_to_matrix
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.engine.versions import read_versions
from ancd_ray.jobs.identity.tables import ClassTitle
from ancd_ray.jobs.report import (
    ClusterScores,
    Confusion,
    Counts,
    EstimatedNumber,
    GalleryItem,
    ProductReport,
    RunReport,
    StageTime,
    TokenMap,
    count_points,
    embedding_2d,
    group_quarantine,
)
from ancd_ray.jobs.report.build_classes import build_classes, build_item, read_crops, read_uris
from ancd_ray.jobs.report.build_detector import build_detector
from ancd_ray.jobs.report.build_tree import build_tree
from ancd_ray.jobs.results import JobResults
from ancd_ray.method.metrics import confusion


def summarize(job: Job, results: JobResults) -> dict[str, Any]:
    """Make the content of `summary.json`; figures that need labels are null without them."""
    rows, detectors = [], []
    for product in job.data.products:
        values = results.products[product.name].figures("metrics")
        of_images = {"detection_auroc": values["image"]["detection_auroc"]}
        detectors.append({"product": product.name, **of_images, **values.get("pixel", {})})
        for level in ("image", "region"):
            figures = {key: values[level][key] for key in ("nmi", "ari", "f1", "n")}
            rows.append({"product": product.name, "level": level, **figures})
    counts = count_inputs(results)
    estimates = {name: artifacts.figures("class_count") for name, artifacts in results.products.items()}
    return {
        "job": job.name,
        "results": rows,
        "detectors": detectors,
        "class_numbers": [
            {"product": name, **{key: values[key] for key in ("n_classes", "low", "high", "confidence")}}
            for name, values in estimates.items()
            if values
        ],
        "images": counts.images,
        "regions": counts.regions,
        "quarantined": counts.quarantined,
        "stages": [
            {"name": run.name, "product": run.product, "cached": run.cached, "seconds": run.seconds}
            for run in results.steps
        ],
        "versions": read_versions(),
    }


def count_inputs(results: JobResults) -> Counts:
    """Count images to classify, quarantined ones of them, and regions of all products, and regions of the base set."""
    images = regions = quarantined = 0
    for artifacts in results.products.values():
        roles = artifacts.table("listing").read(["role"]).column("role")
        images += pc.sum(pc.equal(roles, "query")).as_py() or 0
        regions += artifacts.table("regions").num_rows
        quarantined += sum(row["role"] == "query" for row in artifacts.quarantine_rows())
    return Counts(images, regions, quarantined, results.base.table("regions").num_rows if results.base else 0)


def build_report(
    job: Job,
    results: JobResults,
    created_at: datetime,
    titles: Mapping[str, Sequence[ClassTitle]],
    folder: Folder,
    cut: Mapping[str, Any] | None = None,
) -> RunReport:
    """Collect the content of the report.

    Parameters
    ----------
    job, results, created_at
        The job, its results, and the time.
    titles
        What the classes of each product are called, by index.
    folder
        The run folder.
    cut
        The record of what was cut of which run, if it is a cut.
    """
    rows = (row for artifacts in results.every for row in artifacts.quarantine_rows())
    libraries = read_versions()
    return RunReport(
        job=job.name,
        created_at=created_at,
        version=libraries.get("ancd-ray", ""),
        libraries=libraries,
        config=dump_resolved(job),
        counts=count_inputs(results),
        stages=[StageTime(run.name, run.product, run.cached, run.seconds, run.rows) for run in results.steps],
        quarantine=group_quarantine((row["uri"], row["stage"], row["reason"]) for row in rows),
        products=[
            _build_product(
                product.name,
                results.products[product.name],
                titles[product.name],
                count_points(len(job.data.products)),
                folder,
                is_alone=len(job.data.products) == 1,
            )
            for product in job.data.products
        ],
        cut=describe_cut(cut) if cut else None,
    )


def describe_cut(cut: Mapping[str, Any]) -> str:
    """Describe of which run a cut is, and what was changed, in a line."""

    def each(change: Mapping[str, Any]) -> str:
        ((kind, value),) = change.items()
        return f"cut into {value}" if kind == "k" else f"{kind} {' and '.join(value) if kind == 'merge' else value}"

    changes = "; ".join(each(change) for own in cut["changes"].values() for change in own)
    return f"A cut of the run {cut['discovery']}: {changes}."


def _build_product(
    name: str, artifacts: ArtifactSet, titles: Sequence[ClassTitle], max_points: int, folder: Folder, is_alone: bool
) -> ProductReport:
    def read_items(region_ids: Sequence[str]) -> dict[str, GalleryItem]:
        crops = read_crops(artifacts.table("regions"), set(region_ids))
        uri_of = read_uris(artifacts.table("image_predictions"), {crop["image_id"] for crop in crops.values()})
        return {region: build_item(crop, 1.0, uri_of[crop["image_id"]]) for region, crop in crops.items()}

    names = [title.name for title in titles]
    values = artifacts.figures("metrics")
    image, region = values["image"], values["region"]
    return ProductReport(
        name=name,
        image_level=ClusterScores(image["n"], image["nmi"], image["ari"], image["f1"]),
        region_level=ClusterScores(region["n"], region["nmi"], region["ari"], region["f1"]),
        classes=build_classes(artifacts, titles),
        normal_precision=image["normal_precision"],
        normal_recall=image["normal_recall"],
        silhouette=region["silhouette"],
        mean_confidence=region["mean_confidence"],
        head_agreement=region["head_agreement"],
        losses=artifacts.figures("trained").get("losses", {}),
        confusion=_build_confusion(artifacts, names),
        token_map=_build_token_map(artifacts, max_points),
        estimated=_build_estimate(artifacts),
        detector=build_detector(artifacts),
        tree=build_tree(artifacts, names, folder, None if is_alone else name, read_items),
    )


def _build_estimate(artifacts: ArtifactSet) -> EstimatedNumber | None:
    """Collect the estimate of the number of classes; None if it was not estimated."""
    values = artifacts.figures("class_count")
    if not values:
        return None
    curves = (values[key] for key in ("numbers", "agreement", "silhouette", "stability"))
    estimate = {key: values[key] for key in ("n_classes", "by_silhouette", "low", "high", "confidence")}
    return EstimatedNumber(**estimate, curve=list(zip(*curves, strict=True)), warning=values.get("warning"))


def _build_confusion(artifacts: ArtifactSet, names: Sequence[str]) -> Confusion | None:
    predictions = artifacts.table("image_predictions").read(["label", "cls"])
    labelled = predictions.filter(predictions.column("label").is_valid())
    if not labelled.num_rows:
        return None
    codes = labelled.column("label").combine_chunks().dictionary_encode()
    found = np.array(codes.dictionary.to_pylist(), str)
    rank = np.argsort(np.argsort(found))  # the number of each label in their order
    rows, clusters, counts = confusion(rank[codes.indices.to_numpy()], labelled.column("cls").to_numpy())
    labels = np.sort(found)
    return Confusion(np.asarray(counts), [str(labels[row]) for row in rows], [names[int(cls)] for cls in clusters])


def _build_token_map(artifacts: ArtifactSet, max_points: int) -> TokenMap | None:
    """Place regions on a plane: not more than are shown, of which alone the embeddings are kept."""
    columns = ["image_id", "embedding", "cls", "confidence", "label"]
    regions = artifacts.table("region_predictions")
    if regions.num_rows < 3:
        return None
    chosen = np.linspace(0, regions.num_rows - 1, min(regions.num_rows, max_points)).astype(int)
    sample = regions.read_rows(chosen, columns)
    rows = sample.select(["image_id", "confidence", "label"]).to_pylist()
    uri_of = read_uris(artifacts.table("image_predictions"), {row["image_id"] for row in rows})
    hover = [f"{uri_of[row['image_id']].rpartition('/')[2]} · {row['confidence']:.2f}" for row in rows]
    labels = [row["label"] for row in rows]
    known = labels if any(label is not None for label in labels) else None
    xy_N2 = embedding_2d(column_to_matrix(sample.column("embedding")), seed=0)
    return TokenMap(xy_N2, sample.column("cls").to_numpy(), hover, known)
