"""Evaluate: the figures of a product; those that need labels are None without them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ancd_ray.data.roles import GOOD
from ancd_ray.data.tables import matrix
from ancd_ray.discovery.features.reading import centred
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Output, Result, write_part
from ancd_ray.method.metrics import auroc, cluster_scores, normal_scores, silhouette

_SAMPLE = 5000  # regions that the figures without labels are taken from


def run(context: Context) -> Result:
    """The table `metrics`."""
    figures = {
        "image": {**_clustering(context.inputs["merge"], "image_predictions"), **_normal(context)},
        "region": {**_clustering(context.inputs["classify"], "region_predictions"), **_unlabelled(context)},
    }
    if scored := context.inputs.get("score_maps"):
        figures["pixel"] = {"auroc": scored.values["pixel_auroc"], "aupro": scored.values["aupro"]}
    rows = [
        {"product": context.product, "level": level, "name": name, "value": value}
        for level, values in figures.items()
        for name, value in values.items()
    ]
    return Result({"metrics": [write_part(context.folder, "metrics", 0, rows)]}, figures)


def _clustering(output: Output, table: str) -> dict[str, float | None]:
    """NMI, ARI and F1 over the rows that have a label."""
    predictions = output.table(table, ["label", "cls"])
    labels = predictions.column("label").to_numpy(zero_copy_only=False)
    known = np.array([label is not None for label in labels], bool)
    if not known.any():
        return {"nmi": None, "ari": None, "f1": None, "n": len(labels)}
    scores = cluster_scores(labels[known].astype(str), predictions.column("cls").to_numpy()[known])
    return {"nmi": scores.nmi, "ari": scores.ari, "f1": scores.f1, "n": scores.n}


def _normal(context: Context) -> dict[str, float | None]:
    """Precision and recall of "normal" (Table VIII), and the detector's image AUROC."""
    predictions = context.inputs["merge"].table("image_predictions", ["image_id", "label", "is_normal"]).to_pydict()
    truth = {i: label == GOOD for i, label in zip(predictions["image_id"], predictions["label"], strict=True) if label}
    figures: dict[str, float | None] = dict.fromkeys(("normal_precision", "normal_recall", "detection_auroc"))
    if len(set(truth.values())) < 2:
        return figures
    if context.inputs["train"].values["has_normal"]:
        said = dict(zip(predictions["image_id"], predictions["is_normal"], strict=True))
        precision, recall = normal_scores(np.array(list(truth.values())), np.array([said[i] for i in truth]))
        figures |= {"normal_precision": precision, "normal_recall": recall}
    maps = context.inputs["detect"].table("maps", ["image_id", "score"]).to_pydict()
    pairs = [(not truth[i], s) for i, s in zip(maps["image_id"], maps["score"], strict=True) if i in truth]
    figures["detection_auroc"] = auroc(np.array([a for a, _ in pairs]), np.array([s for _, s in pairs]))
    return figures


def _unlabelled(context: Context) -> dict[str, Any]:
    """What can be said without labels: how far apart (in frozen features), how sure, how much the heads agree."""
    regions = context.inputs["classify"].table("region_predictions", ["cls", "confidence", "head_cls"])
    if not regions.num_rows:
        return {"silhouette": None, "mean_confidence": None, "head_agreement": None}
    chosen = np.linspace(0, regions.num_rows - 1, min(regions.num_rows, _SAMPLE)).astype(int)
    sample = regions.take(chosen)
    cls = sample.column("cls").to_numpy()
    heads = [matrix(sample.column("head_cls"))[:, head] for head in range(len(sample.column("head_cls")[0]))]
    agreement = [cluster_scores(a, b).ari for i, a in enumerate(heads) for b in heads[:i]]
    return {
        "silhouette": silhouette(centred(context.inputs["describe"], chosen), cls, seed=0),
        "mean_confidence": float(np.mean(regions.column("confidence").to_numpy())),
        "head_agreement": float(np.mean(agreement)) if agreement else None,
    }
