"""The model bundle of a product: all that classifying new images takes, in one small folder.

bundle.json         backbone id and digest, classes, MEBin range, detector state, τ_α, provenance
model.safetensors   the trained tail and heads
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs.report.build import Outputs, class_names

FORMAT = 1


def describe(job: Job, outputs: Outputs) -> dict[str, Any]:
    """What `bundle.json` says; `job` is the job as it is for the product."""
    trained = outputs["train"].values
    return {
        "format": FORMAT,
        "backbone": {**job.backbone.model_dump(), "digest": trained["backbone_digest"]},
        "base_classes": trained["base_classes"],
        "novel_classes": class_names(trained),
        "has_normal": trained["has_normal"],
        "best_head": outputs["classify"].values["best_head"],
        "detector": outputs["detect"].manifest["config"]["detector"],
        "detector_state": _state(outputs.get("fit_detector")),
        "mebin": {**job.mebin.model_dump(), "range": outputs["regions"].values["range"]},
        "tau_alpha": job.merge.tau_alpha,
        "merge_rule": job.merge.rule,
        "steps": {name: output.fingerprint for name, output in outputs.items()},
    }


def write(job: Job, outputs: Outputs, folder: Path) -> Path:
    """Writes the bundle of a product into a local folder."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(describe(job, outputs), indent=1, ensure_ascii=False, sort_keys=True)
    (folder / "bundle.json").write_text(document + "\n", "utf-8")
    if "model.safetensors" in outputs["train"].manifest["files"]:  # a clustering leaves none
        (folder / "model.safetensors").write_bytes(outputs["train"].folder.read("model.safetensors"))
    return folder


def _state(fitted: Output | None) -> dict[str, Any] | None:
    """Where the memory bank is, and its digest: a reference, since it is larger than all the rest."""
    return {"folder": fitted.folder.uri, "files": dict(fitted.manifest["files"])} if fitted else None
