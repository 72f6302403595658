"""Plan of a job: the archive is listed, the job is checked, and its steps are determined."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ancd_ray.config.effects import describe_unread
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.config.overrides import apply_overrides
from ancd_ray.data.layouts import LayoutError, ProductConfig
from ancd_ray.data.layouts.peek import peek
from ancd_ray.data.location import Location, remember
from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder, digest
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.stage import Flow, Step
from ancd_ray.jobs.archive import AUTO, Archive, ProductListing
from ancd_ray.jobs.checks import check_base, check_classes, check_detector, check_training
from ancd_ray.jobs.flows import base_flow, discovery_flow
from ancd_ray.jobs.identity.corrections import NO_CORRECTIONS, Corrections, read_corrections
from ancd_ray.jobs.samples import Sample, find_sample


@dataclass(frozen=True)
class ProductPlan:
    """Plan of a product: job with its overrides, its flow, and the flow of the base set, if any."""

    name: str
    job: Job
    flow: Flow
    base: Flow | None
    classes: Classes
    labelled: bool  # whether any image has a label
    sample: Sample

    @property
    def listing(self) -> ProductListing:
        """The images that the discovery looks at."""
        return self.sample.listing

    @property
    def steps(self) -> list[Step]:
        """All steps in dependency order, those of the base set first."""
        return [*(self.base.steps if self.base else []), *self.flow.steps]

    def step_of(self, role: str) -> Step:
        """Return the step that makes an artifact of the product."""
        return self.flow.artifacts[role].step

    def describe_classes(self) -> str:
        """Describe how many classes are looked for, and what is taken for normal."""
        number = str(self.classes.n_novel) if self.classes.n_novel != AUTO else "an estimated number of"
        if not self.classes.has_normal:
            return f"{number} classes to look for, none of them normal (classes.normal={self.job.classes.normal})"
        return f"{number} classes to look for, the normal one included (classes.normal={self.job.classes.normal})"


@dataclass(frozen=True)
class JobPlan:
    """Plan of a job."""

    job: Job
    root: Folder
    products: tuple[ProductPlan, ...]
    base: ProductListing | None = None

    @property
    def steps(self) -> list[Step]:
        """All distinct steps in dependency order."""
        steps = [step for plan in self.products if plan.base for step in plan.base.steps]
        steps += [step for plan in self.products for step in plan.flow.steps]
        return list({step.fingerprint: step for step in steps}.values())

    @property
    def is_all(self) -> bool:
        """Whether the discovery looks at all images."""
        return all(product.sample.is_all for product in self.products)

    def write_samples(self) -> bool:
        """Write the partitions that are new; False if another job has written some since, and the plan is outdated."""
        if any(product.sample.compared.is_outdated() for product in self.products):
            return False
        for product in self.products:
            product.sample.write()
        return True

    @property
    def run_folder(self) -> Folder:
        """Folder of the run's record and report; the same for the same job and archive."""
        ends = [plan.step_of("metrics").fingerprint for plan in self.products]
        return self.root / "runs" / f"{self.job.name}-{digest(ends)[:12]}"

    def count_images(self, step: Step) -> int:
        """Count the images of the product of a step."""
        listings = [product.listing for product in self.products] + ([self.base] if self.base else [])
        return next(len(listing.rows) for listing in listings if listing.config.name == step.product)

    def describe_inputs(self) -> list[str]:
        """Describe in lines what is taken of the archive and how it will be read; a few images are opened."""
        lines = describe_unread(self.job)
        for product in self.products:
            listing, outside = product.listing, product.sample.describe()
            notes = [
                *listing.account.describe(),
                *peek(listing.images, listing.config),
                *product.job.detector.describe_inputs(listing.images),
                product.describe_classes(),
                *([outside] if outside else []),
            ]
            lines += [f"{product.name}: {note}" for note in notes]
        if self.base:
            notes = [
                *self.base.account.describe("for the base set"),
                *peek(self.base.images, self.base.config),
            ]
            lines += [f"{self.base.config.name}: {note}" for note in notes]
        return lines


def make(job: Job, archive: Archive | None = None) -> JobPlan:
    """List the archive, check the job, and plan the steps; no image is opened.

    Parameters
    ----------
    job
        The job.
    archive
        Listings of the archive, to share them between several plans.

    Raises
    ------
    JobError
        The job cannot run; the message has one line for each problem.
    """
    problems: list[str] = []
    job = resolve_root(job)
    archive = archive or Archive(job.data.root)
    base: ProductListing | None = None
    if job.data.base:
        try:
            base = archive.base(job.data.base)
            problems += check_base(job.data.base, base.images)
        except LayoutError as error:
            problems.append(str(error))
    root, products = Folder(job.output_root), []
    corrections = read_corrections(root)
    for product in job.data.products:
        try:
            own = pin_files(apply_overrides(job, product)).resolve_ring()
            known = base_flow(own, own.data.base.name, base) if own.data.base and base else None
            corrected = corrections.get(product.name, NO_CORRECTIONS)
            planned = _plan_product(own, product, archive, root, known, base.labels if base else (), corrected)
        except JobError as error:
            problems += error.lines
            continue
        except (LayoutError, ValueError) as error:
            problems.append(str(error))
            continue
        listed = archive.product(product, own.detector.reads_maps).images
        problems += check_detector(own, product, listed) + check_training(own)
        problems += check_classes(product.name, planned.classes, listed)
        products.append(planned)
    if problems:
        raise JobError(*dict.fromkeys(problems))
    return JobPlan(job, root, tuple(products), base)


def _plan_product(
    job: Job,
    product: ProductConfig,
    archive: Archive,
    root: Folder,
    base: Flow | None,
    known: tuple[str, ...],
    corrections: Corrections,
) -> ProductPlan:
    """Plan the discovery of a product over its sample; all plans with the same archive have the same sample.

    Raises
    ------
    LayoutError, ValueError, JobError
        The product cannot be listed, or its number of classes is unknown.
    """

    def plan_over(listing: ProductListing) -> tuple[Flow, Classes]:
        classes = listing.classes(job, product, known)
        return discovery_flow(job, product.name, listing, classes, base, corrections), classes

    def is_done(listing: ProductListing) -> bool:
        flow, _ = plan_over(listing)
        return Output.find(flow.artifacts["metrics"].step.folder(root)) is not None

    sample = find_sample(job, product, archive, is_done)
    flow, classes = plan_over(sample.listing)
    return ProductPlan(product.name, job, flow, base, classes, bool(sample.listing.labels), sample)


def resolve_root(job: Job) -> Job:
    """Make `data.root` absolute: workers of Ray have other working directories."""
    place = Location.parse(job.data.root)
    remember([place])
    root = str(place)
    return job.model_copy(update={"data": job.data.model_copy(update={"root": root})})


def pin_files(job: Job) -> Job:
    """Set the digests of the files that the job names, weights and detectors: a changed file changes fingerprints."""
    job = job.model_copy(update={"detector": job.detector.pin_files()})
    weights = Path(job.backbone.weights).expanduser()
    if job.backbone.sha256 or not weights.is_file():
        return job
    stat = weights.stat()
    pinned = job.backbone.model_copy(update={"sha256": _digest_file(weights, stat.st_size, stat.st_mtime_ns)})
    return job.model_copy(update={"backbone": pinned})


@lru_cache
def _digest_file(path: Path, size: int, time: int) -> str:  # noqa: ARG001
    return hashlib.sha256(path.read_bytes()).hexdigest()
