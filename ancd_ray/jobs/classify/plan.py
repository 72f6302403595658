"""Plan of a job of `mode: classify`: models are pinned, and the archive is compared with its partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.data.layouts import LayoutError, ProductConfig
from ancd_ray.data.layouts.peek import peek
from ancd_ray.data.store import Folder, digest
from ancd_ray.engine.stage import Step
from ancd_ray.jobs.archive import Archive, ProductListing
from ancd_ray.jobs.classify.partitions import FOLDER, Partition, find_partitions
from ancd_ray.jobs.classify.pinned import PinnedModel, pin_model
from ancd_ray.jobs.plan import resolve_root
from ancd_ray.models.classify_images import ClassifyImages, Keep


@dataclass(frozen=True)
class ProductPlan:
    """Plan of a product: its model, its partitions, and the step of each partition that has images left."""

    name: str
    model: PinnedModel
    listing: ProductListing
    partitions: Sequence[Partition]
    steps: Sequence[Step]
    deleted: int
    keep: Keep

    def describe(self) -> list[str]:
        """Describe in lines what will happen with the images; a few are opened."""
        looked = peek(self.listing.images, self.listing.config)
        lines = [*self.listing.account.describe(), *looked]
        return [*(f"{self.name}: {line}" for line in lines), self.describe_changes()]

    def describe_changes(self) -> str:
        """Describe in one line what is new, and the model."""
        new = sum(partition.images for partition in self.partitions if partition.is_new)
        known = sum(partition.images - len(partition.gone) for partition in self.partitions) - new
        gone = f", {self.deleted:,} of {known + self.deleted:,} images are gone" if self.deleted else ""
        names = ", ".join(self.model.classes)
        line = f"{new:,} new images, {known:,} known{gone}; model {self.model.digest} with classes {names}"
        return f"{self.name}: {line}"


@dataclass(frozen=True)
class ClassificationPlan:
    """Plan of a job of `mode: classify`."""

    job: Job
    root: Folder
    products: tuple[ProductPlan, ...]

    @property
    def steps(self) -> list[Step]:
        """All steps, by product and partition."""
        return [step for product in self.products for step in product.steps]

    def count_images(self, step: Step) -> int:
        """Count the images of the partition of a step."""
        product = next(product for product in self.products if product.name == step.product)
        ids = {partition.id: partition.images for partition in product.partitions}
        return ids[step.stage.hashed["partition"]]

    def describe_inputs(self) -> list[str]:
        """Describe in lines what is taken of the archive, and what of it is new; a few images are opened."""
        return [line for product in self.products for line in product.describe()]

    @property
    def run_folder(self) -> Folder:
        """Folder of the run's record and report; the same for the same archive, models and job."""
        gone = [[sorted(partition.gone) for partition in product.partitions] for product in self.products]
        ends = [[step.fingerprint for step in self.steps], gone]
        return self.root / "runs" / f"{self.job.name}-{digest(ends)[:12]}"


def make(job: Job) -> ClassificationPlan:
    """List the archive, find the models, and plan the steps; no image is opened.

    Raises
    ------
    JobError
        The job cannot run; the message has one line for each problem.
    """
    job = resolve_root(job)
    root, archive = Folder(job.output_root), Archive(job.data.root)
    problems: list[str] = []
    products = []
    for product in job.data.products:
        try:
            products.append(_plan_product(job, product, root, archive))
        except (AncdError, LayoutError) as error:
            problems += str(error).splitlines()
    if problems:
        raise JobError(*dict.fromkeys(problems))
    return ClassificationPlan(job, root, tuple(products))


def _plan_product(job: Job, product: ProductConfig, root: Folder, archive: Archive) -> ProductPlan:
    assert job.model is not None
    model = pin_model(job.model, product.name)
    listing = archive.product(product, model.needs)
    if model.needs == "masks" and not any(image.has_mask for image in listing.images):
        raise JobError(f"product {product.name}: its model takes regions from masks, and the archive has none")
    rows = [row for row in listing.rows if row["role"] == "query"]
    partitions, deleted = find_partitions(root / FOLDER / product.name, rows, listing.stamps)
    steps = [
        Step(
            ClassifyImages(model.digest, partition.id, job.keep, model.folder(root).uri, listing=partition.file),
            product.name,
            {},
        )
        for partition in partitions
        if not partition.is_empty
    ]
    return ProductPlan(product.name, model, listing, partitions, steps, deleted, job.keep)
