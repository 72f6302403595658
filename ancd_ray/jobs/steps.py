"""The steps of a product and of the base set: what follows from what, and which keys of the job each depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ancd_ray.config.effects import Situation, reset_unused
from ancd_ray.config.job import Job
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.layouts import ProductConfig
from ancd_ray.data.roles import Classes
from ancd_ray.detectors.base import DetectorConfig, FittedDetector
from ancd_ray.detectors.ground_truth import GroundTruth
from ancd_ray.engine.step import Step
from ancd_ray.jobs.archive import AUTO, Holding
from ancd_ray.stages import (
    catalog,
    classify,
    cluster,
    count_classes,
    describe,
    detect,
    evaluate,
    fit_detector,
    merge,
    regions,
    score_maps,
    views,
)
from ancd_ray.stages import train as training

Steps = dict[str, Step]


def base_steps(job: Job, base: ProductConfig, holding: Holding) -> Steps:
    """The base set goes the way of a product whose detector is the truth, up to what discovery reads, if it does."""
    if job.discovery.method not in ("anomalyncd", "gcd"):
        return {}
    detector = GroundTruth(name="ground_truth")
    job = reset_unused(Situation(job, detector.maps_are_masks, has_base=True, has_normal=False))
    steps = _up_to_regions(job, base.name, holding, detector)
    if job.train.views.bank and job.discovery.method == "anomalyncd":
        steps["views"] = _views(job, base.name, job.train.views.base, steps)
    if job.discovery.method == "gcd":
        steps["describe"] = _describe(job, base.name, steps)
    return steps


def product_steps(job: Job, name: str, holding: Holding, classes: Classes, base: Mapping[str, Step]) -> Steps:
    """All steps of a product, in an order in which they can run; `job` is the job as it is for this product."""
    job = reset_unused(Situation(job, job.detector.maps_are_masks, bool(base), classes.has_normal))
    steps = _up_to_regions(job, name, holding, job.detector)
    trained = job.discovery.method == "anomalyncd"
    if job.train.views.bank and trained:
        steps["views"] = _views(job, name, job.train.views.bank, steps)
    steps["describe"] = _describe(job, name, steps)
    if classes.n_novel == AUTO:
        steps["count_classes"] = _count_classes(job, name, steps, classes)
    steps |= _learned(job, name, steps, classes, base) if trained else _clustered(job, name, steps, classes, base)
    predicted = {
        "train": steps["train" if trained else "cluster"],
        "classify": steps["classify" if trained else "cluster"],
    }
    inputs = {"catalog": steps["catalog"], **predicted}
    steps["merge"] = Step("merge", name, job.merge.model_dump(), inputs, partial(merge.run, config=job.merge))
    inputs = {**_some(steps, "describe", "detect", "merge", "score_maps"), **predicted}
    steps["evaluate"] = Step("evaluate", name, {}, inputs, evaluate.run)
    return steps


def _up_to_regions(job: Job, name: str, holding: Holding, detector: DetectorConfig) -> Steps:
    steps = {"catalog": _catalog(job, name, holding)}
    if isinstance(detector, FittedDetector):
        run = partial(fit_detector.run, detector=detector.for_fit, backbone_config=job.backbone.for_images)
        slice_ = {"detector": detector.for_fit.model_dump(), "backbone": _trunk(job)}
        steps["fit_detector"] = Step("fit_detector", name, slice_, {"catalog": steps["catalog"]}, run)
    steps["detect"] = _detect(job, name, detector, steps)
    if not detector.maps_are_masks:
        steps["score_maps"] = Step("score_maps", name, {}, _some(steps, "catalog", "detect"), score_maps.run)
    steps["regions"] = _regions(job, name, detector, steps)
    return steps


def _learned(job: Job, name: str, steps: Steps, classes: Classes, base: Mapping[str, Step]) -> Steps:
    """Training, and the model over every region (Section III-C)."""
    slice_ = {"backbone": _backbone(job)}
    clean = partial(views.run, trunk=job.backbone, n_views=1, clean=True)
    learned = {
        "clean_views": Step("clean_views", name, slice_, _some(steps, "regions"), clean),
        "train": _train(job, name, steps, classes, base),
    }
    of_head = ["describe"] if job.train.head == "silhouette" else []
    inputs = _some({**steps, **learned}, "regions", "clean_views", "train", *of_head)
    run = partial(classify.run, trunk=job.backbone)
    return {**learned, "classify": Step("classify", name, slice_, inputs, run)}


def _clustered(job: Job, name: str, steps: Steps, classes: Classes, base: Mapping[str, Step]) -> Steps:
    """Frozen features clustered: in place of both."""
    method = job.discovery.method
    inputs = _some(steps, "describe", "count_classes")
    if method == "linked":  # it also looks at the scores of images for what is normal
        inputs |= _some(steps, "detect")
    if method == "gcd" and base:
        inputs["base"] = base["describe"]
    slice_ = {"method": method, "seed": job.train.seed, "classes": [classes.n_novel, classes.has_normal]}
    run = partial(cluster.run, method=method, classes=classes, seed=job.train.seed)
    return {"cluster": Step("cluster", name, slice_, inputs, run)}


def _some(steps: Mapping[str, Step], *names: str) -> Steps:
    """Those of the named steps that there are."""
    return {name: steps[name] for name in names if name in steps}


def _catalog(job: Job, name: str, holding: Holding) -> Step:
    slice_ = {"root": job.data.root, "listing": holding.digest}
    return Step("catalog", name, slice_, {}, partial(catalog.run, rows=holding.rows))


def _detect(job: Job, name: str, detector: DetectorConfig, steps: Mapping[str, Step]) -> Step:
    slice_ = {"detector": detector.model_dump()}
    if detector.resources == "model":
        slice_["backbone"] = _trunk(job)
    inputs = _some(steps, "catalog", "fit_detector")
    return Step(
        "detect", name, slice_, inputs, partial(detect.run, detector=detector, backbone_config=job.backbone.for_images)
    )


def _regions(job: Job, name: str, detector: DetectorConfig, steps: Mapping[str, Step]) -> Step:
    from_masks, config = detector.maps_are_masks, job.mebin
    slice_ = {"mebin": config.model_dump(), "from_masks": from_masks}
    inputs = _some(steps, "catalog", "detect")
    return Step("regions", name, slice_, inputs, partial(regions.run, config=config, from_masks=from_masks))


def _views(job: Job, name: str, n_views: int, steps: Mapping[str, Step]) -> Step:
    slice_ = {"backbone": _backbone(job), "views": n_views}
    run = partial(views.run, trunk=job.backbone, n_views=n_views)
    return Step("views", name, slice_, {"regions": steps["regions"]}, run)


def _train(job: Job, name: str, steps: Mapping[str, Step], classes: Classes, base: Mapping[str, Step]) -> Step:
    source = "views" if job.train.views.bank else "regions"
    inputs = {"novel": steps[source]}
    if base:
        inputs["base"] = base[source]
    if "count_classes" in steps:
        inputs["count_classes"] = steps["count_classes"]
    # who trains, how often it is saved, and which head serves later, does not change what is learned
    config = job.train.model_dump(by_alias=True, exclude={"workers", "checkpoint_every", "head"})
    slice_ = {"train": config, "backbone": _backbone(job), "classes": [classes.n_novel, classes.has_normal]}
    run = partial(training.run, config=job.train, trunk=job.backbone, classes=classes)
    return Step("train", name, slice_, inputs, run)


def _describe(job: Job, name: str, steps: Mapping[str, Step]) -> Step:
    run = partial(describe.run, trunk=job.backbone)
    return Step("describe", name, {"backbone": _backbone(job)}, {"regions": steps["regions"]}, run)


def _count_classes(job: Job, name: str, steps: Mapping[str, Step], classes: Classes) -> Step:
    slice_ = {"max_classes": job.classes.max_classes, "has_normal": classes.has_normal}
    run = partial(count_classes.run, at_most=job.classes.max_classes, has_normal=classes.has_normal)
    return Step("count_classes", name, slice_, {"describe": steps["describe"]}, run)


def _backbone(job: Job) -> dict[str, Any]:
    """The backbone's slice; a weights file stands with its digest, so that another file of that name is noticed."""
    return _pinned(job.backbone)


def _trunk(job: Job) -> dict[str, Any]:
    """The same for detectors, which look at whole images."""
    return _pinned(job.backbone.for_images)


def _pinned(backbone: BackboneConfig) -> dict[str, Any]:
    weights = Path(backbone.weights).expanduser()
    content = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
    return {**backbone.model_dump(), "content": content}
