"""From a job to its steps: what there is to do, and under which fingerprint its result is kept.

A fingerprint is the digest of a step's name, its version, its slice of the job, and the fingerprints of its inputs. The
same fingerprint is the same result; whatever else changes in the job does not touch it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ancd_ray.archive import AUTO, Archive, Holding
from ancd_ray.config import GroundTruth, Job, PatchCore, Product
from ancd_ray.jobfile import JobError
from ancd_ray.layouts import LayoutError
from ancd_ray.outputs import Result
from ancd_ray.overrides import effective
from ancd_ray.preflight import base_problems, detector_problems, training_problems
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
from ancd_ray.stages.context import Context
from ancd_ray.store import Folder, digest
from ancd_ray.training.loop import Classes

# Raised by whoever changes what a step computes: its results so far, and all that follow from them, are then stale.
VERSIONS = {
    "catalog": 1,
    "fit_detector": 1,
    "detect": 1,
    "score_maps": 1,
    "regions": 2,
    "views": 1,
    "describe": 1,
    "count_classes": 1,
    "cluster": 1,
    "clean_views": 1,
    "train": 2,
    "classify": 2,
    "merge": 2,
    "evaluate": 1,
}


@dataclass(frozen=True)
class Step:
    """A piece of work with one result; `inputs` are the steps that it reads, under the names it knows them by."""

    name: str
    product: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Step]
    run: Callable[[Context], Result] = field(compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that the result depends on."""
        inputs = {name: step.fingerprint for name, step in self.inputs.items()}
        return digest([self.name, self.product, VERSIONS[self.name], self.config, inputs])[:16]

    def without_listing(self) -> Step:
        """The same step for another process, without the listing of the archive that its catalog would start from."""
        inputs = {name: step.without_listing() for name, step in self.inputs.items()}
        if self.name != "catalog":
            return replace(self, inputs=inputs)
        return replace(self, run=partial(catalog.run, rows=()))

    def folder(self, root: Folder) -> Folder:
        """Where its result is kept."""
        return root / "steps" / self.name / f"{self.product}-{self.fingerprint}"


@dataclass(frozen=True)
class ProductPlan:
    """A product: the job as it is for it, its steps by name and in order, those of the base set before them."""

    name: str
    job: Job
    steps: Mapping[str, Step]
    base: Mapping[str, Step]
    classes: Classes
    labelled: bool  # whether any image has a label to compare with


@dataclass(frozen=True)
class JobPlan:
    """All that a job comes to."""

    job: Job
    root: Folder
    products: tuple[ProductPlan, ...]

    @property
    def steps(self) -> list[Step]:
        """Every step once, in an order in which it can run."""
        steps = [step for plan in self.products for step in plan.base.values()]
        steps += [step for plan in self.products for step in plan.steps.values()]
        return list({step.fingerprint: step for step in steps}.values())

    @property
    def run_folder(self) -> Folder:
        """Where the run's record and report go: the same job over the same archive gives the same folder."""
        ends = [plan.steps["evaluate"].fingerprint for plan in self.products]
        return self.root / "runs" / f"{self.job.name}-{digest(ends)[:12]}"


def make(job: Job, archive: Archive | None = None) -> JobPlan:
    """Lists the archive and lays out the steps; nothing is opened or computed yet.

    `archive`: its listings, where other plans over it are made too.

    Raises:
        JobError: something is wrong that would waste the work; all that can be found, one line each.
    """
    problems: list[str] = []
    job = rooted(job)
    archive = archive or Archive(job.data.root)
    base: Holding | None = None
    if job.data.base:
        try:
            base = archive.base(job.data.base)
            problems += base_problems(job.data.base, base.listing)
        except LayoutError as error:
            problems.append(str(error))
    products = []
    for product in job.data.products:
        try:
            own = effective(job, product)
            holding = archive.product(product, own.detector)
            classes = holding.classes(own, product, base.labels if base else ())
        except JobError as error:
            problems += error.lines
            continue
        except (LayoutError, ValueError) as error:
            problems.append(str(error))
            continue
        problems += detector_problems(own, product, holding.listing) + training_problems(own)
        products.append(_steps(own, product, holding, classes, base))
    if problems:
        raise JobError(*dict.fromkeys(problems))
    return JobPlan(job, Folder(job.output_root), tuple(products))


def rooted(job: Job) -> Job:
    """The job with an absolute root: workers of Ray run in folders of their own."""
    root = Folder(job.data.root).uri
    return job.model_copy(update={"data": job.data.model_copy(update={"root": root})})


# --- the steps


def _base_steps(job: Job, base: Product, holding: Holding) -> dict[str, Step]:
    """The base set goes the way of a product whose detector is the truth, up to its views."""
    name = base.name
    steps = {"catalog": _catalog(job, name, holding)}
    detector = GroundTruth(name="ground_truth")
    steps["detect"] = _detect(job, name, detector, steps)
    steps["regions"] = _regions(job, name, detector, steps)
    if job.train.views.bank and job.discovery.method == "anomalyncd":
        steps["views"] = _views(job, name, job.train.views.base, steps)
    if job.discovery.method == "gcd":
        steps["describe"] = _describe(job, name, steps)
    return steps


def _steps(job: Job, product: Product, holding: Holding, classes: Classes, base: Holding | None) -> ProductPlan:
    """All steps of a product; `job` is the job as it is for this product."""
    name, detector = product.name, job.detector
    steps = {"catalog": _catalog(job, name, holding)}
    if isinstance(detector, PatchCore):
        run = partial(fit_detector.run, detector=detector, trunk=job.backbone)
        slice_ = {"detector": detector.model_dump(), "backbone": _backbone(job)}
        steps["fit_detector"] = Step("fit_detector", name, slice_, {"catalog": steps["catalog"]}, run)
    steps["detect"] = _detect(job, name, detector, steps)
    if not isinstance(detector, GroundTruth):
        inputs = {key: steps[key] for key in ("catalog", "detect")}
        steps["score_maps"] = Step("score_maps", name, {}, inputs, score_maps.run)
    steps["regions"] = _regions(job, name, detector, steps)
    base_steps = _base_steps(job, job.data.base, base) if job.data.base and base else {}
    method = job.discovery.method
    if job.train.views.bank and method in ("anomalyncd", "consensus"):
        steps["views"] = _views(job, name, job.train.views.bank, steps)
    if method != "anomalyncd" or classes.n_novel == AUTO:
        steps["describe"] = _describe(job, name, steps)
    if classes.n_novel == AUTO:
        steps["count_classes"] = _count_classes(job, name, steps, classes)
    if method == "anomalyncd":
        if job.train.views.bank:
            run = partial(views.run, trunk=job.backbone, n_views=1, clean=True)
            slice_ = {"backbone": _backbone(job)}
            steps["clean_views"] = Step("clean_views", name, slice_, {"regions": steps["regions"]}, run)
        steps["train"] = _train(job, name, steps, classes, base_steps)
        inputs = {key: steps[key] for key in ("regions", "clean_views", "train") if key in steps}
        run = partial(classify.run, trunk=job.backbone)
        steps["classify"] = Step("classify", name, {"backbone": _backbone(job)}, inputs, run)
        predicted = {"train": steps["train"], "classify": steps["classify"]}
    else:
        steps["cluster"] = _cluster(job, name, steps, classes, base_steps)
        predicted = {"train": steps["cluster"], "classify": steps["cluster"]}
    inputs = {"catalog": steps["catalog"], **predicted}
    steps["merge"] = Step("merge", name, job.merge.model_dump(), inputs, partial(merge.run, config=job.merge))
    inputs = {**{key: steps[key] for key in ("detect", "merge", "score_maps") if key in steps}, **predicted}
    steps["evaluate"] = Step("evaluate", name, {}, inputs, evaluate.run)
    return ProductPlan(name, job, steps, base_steps, classes, bool(holding.labels))


def _catalog(job: Job, name: str, holding: Holding) -> Step:
    slice_ = {"root": job.data.root, "listing": holding.digest}
    return Step("catalog", name, slice_, {}, partial(catalog.run, rows=holding.rows))


def _detect(job: Job, name: str, detector: Any, steps: Mapping[str, Step]) -> Step:
    slice_ = {"detector": detector.model_dump()}
    if isinstance(detector, PatchCore):
        slice_["backbone"] = _backbone(job)
    inputs = {key: steps[key] for key in ("catalog", "fit_detector") if key in steps}
    return Step("detect", name, slice_, inputs, partial(detect.run, detector=detector, trunk=job.backbone))


def _regions(job: Job, name: str, detector: Any, steps: Mapping[str, Step]) -> Step:
    from_masks = isinstance(detector, GroundTruth)
    slice_ = {"mebin": job.mebin.model_dump(), "from_masks": from_masks}
    inputs = {key: steps[key] for key in ("catalog", "detect")}
    return Step("regions", name, slice_, inputs, partial(regions.run, config=job.mebin, from_masks=from_masks))


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
    # who trains, and how often it is saved, does not change what is learned
    config = job.train.model_dump(by_alias=True, exclude={"workers", "checkpoint_every"})
    slice_ = {"train": config, "backbone": _backbone(job), "classes": [classes.n_novel, classes.has_normal]}
    run = partial(training.run, config=job.train, trunk=job.backbone, classes=classes)
    return Step("train", name, slice_, inputs, run)


def _describe(job: Job, name: str, steps: Mapping[str, Step]) -> Step:
    run = partial(describe.run, trunk=job.backbone)
    return Step("describe", name, {"backbone": _backbone(job)}, {"regions": steps["regions"]}, run)


def _count_classes(job: Job, name: str, steps: Mapping[str, Step], classes: Classes) -> Step:
    slice_ = {"at_most": job.classes.at_most, "has_normal": classes.has_normal}
    run = partial(count_classes.run, at_most=job.classes.at_most, has_normal=classes.has_normal)
    return Step("count_classes", name, slice_, {"describe": steps["describe"]}, run)


def _cluster(job: Job, name: str, steps: Mapping[str, Step], classes: Classes, base: Mapping[str, Step]) -> Step:
    method = job.discovery.method
    inputs = {key: steps[key] for key in ("describe", "count_classes") if key in steps}
    if method == "consensus":  # beside appearance it looks at views, and at scores for what is normal
        inputs |= {key: steps[key] for key in ("detect", "views") if key in steps}
    if method == "gcd" and base:
        inputs["base"] = base["describe"]
    slice_ = {"method": method, "seed": job.train.seed, "classes": [classes.n_novel, classes.has_normal]}
    run = partial(cluster.run, method=method, classes=classes, seed=job.train.seed)
    return Step("cluster", name, slice_, inputs, run)


def _backbone(job: Job) -> dict[str, Any]:
    """The backbone's slice; a weights file stands with its digest, so that another file of that name is noticed."""
    weights = Path(job.backbone.weights).expanduser()
    content = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
    return {**job.backbone.model_dump(), "content": content}
