"""From a job to its steps: what there is to do, and under which fingerprint its result is kept.

A fingerprint is the digest of a step's name, its version, its slice of the job, and the fingerprints of its inputs. The
same fingerprint is the same result; whatever else changes in the job does not touch it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ancd_ray.config import GroundTruth, Job, PatchCore, Precomputed, Product
from ancd_ray.jobfile import JobError
from ancd_ray.layouts import LayoutError, Listed, list_product
from ancd_ray.layouts.maps import pair_maps
from ancd_ray.outputs import Result
from ancd_ray.preflight import base_problems, detector_of, detector_problems, training_problems
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
from ancd_ray.tables import GOOD
from ancd_ray.training.loop import Classes

AUTO = 0  # a number of classes that a step of its own estimates

# Raised by whoever changes what a step computes: its results so far, and all that follow from them, are then stale.
VERSIONS = {
    "catalog": 1,
    "fit_detector": 1,
    "detect": 1,
    "score_maps": 1,
    "regions": 1,
    "views": 1,
    "describe": 1,
    "count_classes": 1,
    "cluster": 1,
    "train": 2,
    "classify": 1,
    "merge": 1,
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

    def folder(self, root: Folder) -> Folder:
        """Where its result is kept."""
        return root / "steps" / self.name / f"{self.product}-{self.fingerprint}"


@dataclass(frozen=True)
class ProductPlan:
    """The steps of a product, by name and in order, and the classes that are looked for."""

    name: str
    steps: Mapping[str, Step]
    classes: Classes | None = None  # None for the base set


@dataclass(frozen=True)
class JobPlan:
    """All that a job comes to."""

    job: Job
    root: Folder
    base: ProductPlan | None
    products: tuple[ProductPlan, ...]

    @property
    def steps(self) -> list[Step]:
        """Every step in an order in which it can run."""
        plans = [*([self.base] if self.base else []), *self.products]
        return [step for plan in plans for step in plan.steps.values()]

    @property
    def run_folder(self) -> Folder:
        """Where the run's record and report go: the same job over the same archive gives the same folder."""
        ends = [plan.steps["evaluate"].fingerprint for plan in self.products]
        return self.root / "runs" / f"{self.job.name}-{digest(ends)[:12]}"


def make(job: Job) -> JobPlan:
    """Lists the archive and lays out the steps; nothing is opened or computed yet.

    Raises:
        JobError: something is wrong that would waste the work; all that can be found, one line each.
    """
    problems: list[str] = []
    job = _rooted(job)
    base_listing: list[Listed] = []
    base: ProductPlan | None = None
    if job.data.base:
        base_listing = _list(job.data.base, job.data.root, problems)
        base_listing = [image for image in base_listing if image.role == "novel" and image.label != GOOD]
        problems += base_problems(job.data.base, base_listing)
        base = _base_steps(job, job.data.base, base_listing) if base_listing else None
    known = tuple(sorted({image.label for image in base_listing if image.label}))
    products = []
    for product in job.data.products:
        listing = _list(product, job.data.root, problems)
        if not listing:
            continue
        maps: dict[str, str] = {}
        try:
            if isinstance(detector_of(job, product), Precomputed):
                listing, maps = pair_maps(product, job.data.root, listing)
            classes = _classes(job, product, listing, known)
        except (LayoutError, ValueError) as error:
            problems.append(str(error))
            continue
        problems += detector_problems(job, product, listing)
        products.append(_steps(job, product, listing, maps, classes, base))
    problems += training_problems(job)
    if problems:
        raise JobError(*problems)
    return JobPlan(job, Folder(job.output_root), base, tuple(products))


def _rooted(job: Job) -> Job:
    """The job with an absolute root: workers of Ray run in folders of their own."""
    root = Folder(job.data.root).uri
    return job.model_copy(update={"data": job.data.model_copy(update={"root": root})})


# --- from the archive


def _list(product: Product, root: str, problems: list[str]) -> list[Listed]:
    try:
        return list_product(product, root)
    except LayoutError as error:
        problems.append(str(error))
        return []


def _classes(job: Job, product: Product, listing: Sequence[Listed], known: tuple[str, ...]) -> Classes:
    """How many classes to look for, and whether the first of them means "normal".

    Raises:
        ValueError: the number is to come from labels that are not there.
    """
    labels = {image.label for image in listing if image.role == "novel" and image.label}
    has_normal = GOOD in labels if labels else GOOD not in product.exclude
    if product.novel is not None:
        return Classes(known, product.novel, has_normal)
    if job.classes.novel == "auto":
        return Classes(known, AUTO, has_normal)
    if job.classes.novel != "from_labels":
        return Classes(known, job.classes.novel, has_normal)
    if not labels:
        raise ValueError(
            f"product {product.name}: classes.novel=from_labels, but nothing is labelled; "
            "set classes.novel to the number of classes to look for, the normal one included"
        )
    return Classes(known, len(labels), has_normal)


# --- the steps


def _base_steps(job: Job, base: Product, listing: Sequence[Listed]) -> ProductPlan:
    """The base set goes the way of a product whose detector is the truth, up to its views."""
    name = base.name
    steps = {"catalog": _catalog(job, base, listing, is_base=True, maps={})}
    detector = GroundTruth(name="ground_truth")
    steps["detect"] = _detect(job, name, detector, steps)
    steps["regions"] = _regions(job, name, detector, steps)
    if job.train.views.bank and job.discovery.method == "anomalyncd":
        steps["views"] = _views(job, name, job.train.views.base, steps)
    if job.discovery.method == "gcd":
        steps["describe"] = _describe(job, name, steps)
    return ProductPlan(name, steps)


def _steps(
    job: Job,
    product: Product,
    listing: Sequence[Listed],
    maps: Mapping[str, str],
    classes: Classes,
    base: ProductPlan | None,
) -> ProductPlan:
    name, detector = product.name, detector_of(job, product)
    steps = {"catalog": _catalog(job, product, listing, is_base=False, maps=maps)}
    if isinstance(detector, PatchCore):
        run = partial(fit_detector.run, detector=detector, trunk=job.backbone)
        slice_ = {"detector": detector.model_dump(), "backbone": _backbone(job)}
        steps["fit_detector"] = Step("fit_detector", name, slice_, {"catalog": steps["catalog"]}, run)
    steps["detect"] = _detect(job, name, detector, steps)
    if not isinstance(detector, GroundTruth):
        inputs = {key: steps[key] for key in ("catalog", "detect")}
        steps["score_maps"] = Step("score_maps", name, {}, inputs, score_maps.run)
    steps["regions"] = _regions(job, name, detector, steps)
    if job.train.views.bank and job.discovery.method in ("anomalyncd", "consensus"):
        steps["views"] = _views(job, name, job.train.views.bank, steps)
    if job.discovery.method != "anomalyncd" or classes.n_novel == AUTO:
        steps["describe"] = _describe(job, name, steps)
    if classes.n_novel == AUTO:
        steps["count_classes"] = _count_classes(job, name, steps, classes)
    if job.discovery.method == "anomalyncd":
        steps["train"] = _train(job, name, steps, classes, base)
        inputs = {"regions": steps["regions"], "train": steps["train"]}
        run = partial(classify.run, trunk=job.backbone)
        steps["classify"] = Step("classify", name, {"backbone": _backbone(job)}, inputs, run)
        predicted = {"train": steps["train"], "classify": steps["classify"]}
    else:
        steps["cluster"] = _cluster(job, name, steps, classes, base)
        predicted = {"train": steps["cluster"], "classify": steps["cluster"]}
    inputs = {"catalog": steps["catalog"], **predicted}
    run = partial(merge.run, tau_alpha=job.merge.tau_alpha, strategy=job.merge.strategy)
    steps["merge"] = Step("merge", name, job.merge.model_dump(), inputs, run)
    inputs = {**{key: steps[key] for key in ("detect", "merge", "score_maps") if key in steps}, **predicted}
    steps["evaluate"] = Step("evaluate", name, {}, inputs, evaluate.run)
    return ProductPlan(name, steps, classes)


def _catalog(job: Job, product: Product, listing: Sequence[Listed], is_base: bool, maps: Mapping[str, str]) -> Step:
    rows = catalog.listing_rows(product.name, listing, is_base, maps)
    stamps = sorted([image.path, image.stamp] for image in listing)
    slice_ = {"root": job.data.root, "listing": digest([rows, stamps])}
    return Step("catalog", product.name, slice_, {}, partial(catalog.run, rows=rows))


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


def _train(job: Job, name: str, steps: Mapping[str, Step], classes: Classes, base: ProductPlan | None) -> Step:
    source = "views" if job.train.views.bank else "regions"
    inputs = {"novel": steps[source]}
    if base:
        inputs["base"] = base.steps[source]
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


def _cluster(job: Job, name: str, steps: Mapping[str, Step], classes: Classes, base: ProductPlan | None) -> Step:
    method = job.discovery.method
    inputs = {key: steps[key] for key in ("describe", "count_classes") if key in steps}
    if method == "consensus":  # beside appearance it looks at views, and at scores for what is normal
        inputs |= {key: steps[key] for key in ("detect", "views") if key in steps}
    if method == "gcd" and base:
        inputs["base"] = base.steps["describe"]
    slice_ = {"method": method, "seed": job.train.seed, "classes": [classes.n_novel, classes.has_normal]}
    run = partial(cluster.run, method=method, classes=classes, seed=job.train.seed)
    return Step("cluster", name, slice_, inputs, run)


def _backbone(job: Job) -> dict[str, Any]:
    """The backbone's slice; a weights file stands with its digest, so that another file of that name is noticed."""
    weights = Path(job.backbone.weights).expanduser()
    content = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
    return {**job.backbone.model_dump(), "content": content}
