"""From a job to its plan: the archive listed, what would waste the work found, every step laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.config.overrides import effective
from ancd_ray.data.layouts import LayoutError
from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder, digest
from ancd_ray.engine.step import Step
from ancd_ray.jobs.archive import Archive, Holding
from ancd_ray.jobs.checks import base_problems, detector_problems, training_problems
from ancd_ray.jobs.steps import base_steps, product_steps


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
        known = base_steps(own, own.data.base, base) if own.data.base and base else {}
        steps = product_steps(own, product.name, holding, classes, known)
        products.append(ProductPlan(product.name, own, steps, known, classes, bool(holding.labels)))
    if problems:
        raise JobError(*dict.fromkeys(problems))
    return JobPlan(job, Folder(job.output_root), tuple(products))


def rooted(job: Job) -> Job:
    """The job with an absolute root: workers of Ray run in folders of their own."""
    root = Folder(job.data.root).uri
    return job.model_copy(update={"data": job.data.model_copy(update={"root": root})})
