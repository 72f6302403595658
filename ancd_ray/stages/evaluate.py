"""Evaluate: computes the metrics of a product; those that need labels are None without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc

from ancd_ray.data.roles import GOOD
from ancd_ray.data.tables import column_to_matrix
from ancd_ray.engine.artifacts import Figures, Table
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, write_part
from ancd_ray.engine.stage import Stage

_SAMPLE = 5000  # maximum number of regions for metrics without labels


@dataclass(frozen=True)
class Evaluate(Stage):
    """Computes metrics at image, region and pixel level."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 4

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        maps: Table
        features: Table
        region_predictions: Table
        image_predictions: Table
        map_scores: Figures | None = None
        region_scores: Figures | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        metrics: Table

    has_normal: bool

    def run(self, context: Context, inputs: In) -> Result:
        """Compute the table `metrics`."""
        figures: dict[str, dict[str, Any]] = {
            "image": {**_compare(inputs.image_predictions), **_evaluate_normal(inputs, self.has_normal)},
            "region": {**_compare(inputs.region_predictions), **_evaluate_unlabeled(inputs)},
        }
        if inputs.map_scores:
            scored = inputs.map_scores.values
            figures["pixel"] = {"auroc": scored["pixel_auroc"], "aupro": scored["aupro"]}
        if inputs.region_scores:
            for name in ("iou", "area_ratio"):
                quartiles = inputs.region_scores.values[name]
                figures["pixel"][f"median_{name}"] = quartiles[1] if quartiles else None
        rows = [
            {"product": context.product, "level": level, "name": name, "value": value}
            for level, values in figures.items()
            for name, value in values.items()
        ]
        return Result({"metrics": [write_part(context.folder, "metrics", 0, rows)]}, figures)


def _compare(table: Table) -> dict[str, float | None]:
    """Compute NMI, ARI and F1 over the rows that have a label; without labels `n` counts all rows."""
    from ancd_ray.method.metrics import cluster_scores

    predictions = table.read(["label", "cls"])
    labelled = predictions.filter(predictions.column("label").is_valid())
    if not labelled.num_rows:
        return {"nmi": None, "ari": None, "f1": None, "n": predictions.num_rows}
    labels = labelled.column("label").combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(labels.dictionary.to_pylist(), str)))  # a number for each label, in its order
    scores = cluster_scores(rank[labels.indices.to_numpy()], labelled.column("cls").to_numpy())
    return {"nmi": scores.nmi, "ari": scores.ari, "f1": scores.f1, "n": scores.n}


def _evaluate_normal(inputs: Evaluate.In, has_normal: bool) -> dict[str, float | None]:
    """Compute precision and recall of "normal" (Table VIII), and the detector's image AUROC."""
    from ancd_ray.method.metrics import auroc, normal_scores

    predictions = inputs.image_predictions.read(["image_id", "label", "is_normal"]).to_pydict()
    truth = {i: label == GOOD for i, label in zip(predictions["image_id"], predictions["label"], strict=True) if label}
    figures: dict[str, float | None] = dict.fromkeys(("normal_precision", "normal_recall", "detection_auroc"))
    if len(set(truth.values())) < 2:
        return figures
    if has_normal:
        said = dict(zip(predictions["image_id"], predictions["is_normal"], strict=True))
        precision, recall = normal_scores(np.array(list(truth.values())), np.array([said[i] for i in truth]))
        figures |= {"normal_precision": precision, "normal_recall": recall}
    maps = inputs.maps.read(["image_id", "score"]).to_pydict()
    pairs = [(not truth[i], s) for i, s in zip(maps["image_id"], maps["score"], strict=True) if i in truth]
    figures["detection_auroc"] = auroc(np.array([a for a, _ in pairs]), np.array([s for _, s in pairs]))
    return figures


def _evaluate_unlabeled(inputs: Evaluate.In) -> dict[str, Any]:
    """Compute metrics without labels: silhouette in frozen features, mean confidence, agreement of the heads."""
    from ancd_ray.discovery.features.region_features import read_comparison_features
    from ancd_ray.method.metrics import cluster_scores, silhouette

    regions = inputs.region_predictions.read(["region_id", "cls", "confidence", "head_cls"])
    n_features = inputs.features.num_rows
    if not regions.num_rows or not n_features:
        return {"silhouette": None, "mean_confidence": None, "head_agreement": None}
    chosen = np.linspace(0, n_features - 1, min(n_features, _SAMPLE)).astype(int)
    ids = inputs.features.read(["region_id"]).column("region_id").take(chosen)
    sample = regions.take(pc.index_in(ids, value_set=regions.column("region_id").combine_chunks()))
    heads = [column_to_matrix(sample.column("head_cls"))[:, head] for head in range(len(sample.column("head_cls")[0]))]
    agreement = [cluster_scores(a, b).ari for i, a in enumerate(heads) for b in heads[:i]]
    return {
        "silhouette": silhouette(
            read_comparison_features(inputs.features, chosen), sample.column("cls").to_numpy(), seed=0
        ),
        "mean_confidence": float(np.mean(regions.column("confidence").to_numpy())),
        "head_agreement": float(np.mean(agreement)) if agreement else None,
    }
