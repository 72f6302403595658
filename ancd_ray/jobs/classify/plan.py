"""Plan of a job of `mode: classify`: models are pinned, and the archive is compared with its partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.data.layouts import LayoutError, ProductConfig
from ancd_ray.data.layouts.peek import peek
from ancd_ray.data.store import Folder, digest
from ancd_ray.engine.stage import Step
from ancd_ray.jobs.archive import Archive, ProductListing
from ancd_ray.jobs.classify.pinned import PinnedModel, find_pinned, pin_folder, pin_model
from ancd_ray.jobs.classify.publish import Published, make_state
from ancd_ray.jobs.identity.extended import extend_model
from ancd_ray.jobs.identity.tables import read_classes
from ancd_ray.jobs.partitions import FOLDER, Partition, compare
from ancd_ray.jobs.plan import JobPlan, resolve_root
from ancd_ray.jobs.results import RECORD
from ancd_ray.jobs.tracking import TrackingProblem
from ancd_ray.models.classify_images import ClassifyImages, Keep
from ancd_ray.models.format import ModelError


@dataclass(frozen=True)
class ProductPlan:
    """Plan of a product: its model, its partitions, and what has to be done with them.

    Parameters
    ----------
    name, model, listing
        Its name, its model, and the images that are described.
    partitions
        All partitions in order.
    deleted
        Number of images that are no longer listed.
    keep
        Regions whose pictures are kept.
    discovered
        The partition that the model was made of, if it is one of them; it has no step.
    to_classify, steps
        The partitions whose images are classified, and the step of each.
    to_republish
        Partitions of which published tables have more than is left.
    earlier
        The models of partitions that are published with an earlier one, by their number.
    """

    name: str
    model: PinnedModel
    listing: ProductListing
    partitions: Sequence[Partition]
    deleted: int
    keep: Keep
    discovered: Partition | None = None
    to_classify: Sequence[Partition] = ()
    steps: Sequence[Step] = ()
    to_republish: Sequence[Partition] = ()
    earlier: Mapping[int, PinnedModel] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, Partition]:
        """The partitions that have images left, by their states in published tables."""
        return {self.make_state(each): each for each in self.partitions if each.left}

    def model_of(self, partition: Partition) -> PinnedModel:
        """Return the model of a partition."""
        return self.earlier.get(partition.number, self.model)

    def make_state(self, partition: Partition) -> str:
        """Return the state of a partition in published tables."""
        return make_state(self.name, partition, self.model_of(partition).digest)

    def make_step(self, partition: Partition, root: Folder) -> Step:
        """Return the step that classifies a partition."""
        model = self.model_of(partition)
        folder = model.folder(root).uri
        stage = ClassifyImages(model.digest, partition.id, self.keep, folder, listing=partition.file)
        return Step(stage, self.name, {})

    def describe(self) -> list[str]:
        """Describe in lines what will happen with the images; a few are opened."""
        looked = peek(self.listing.images, self.listing.config)
        lines = [*self.listing.account.describe(), *looked]
        return [*(f"{self.name}: {line}" for line in lines), self.describe_changes()]

    def describe_changes(self) -> str:
        """Describe in one line what is new, and the model."""
        new = sum(partition.images for partition in self.partitions if partition.is_new)
        known = sum(partition.left for partition in self.partitions) - new
        gone = f", {self.deleted:,} of {known + self.deleted:,} images are gone" if self.deleted else ""
        count = f"{new:,} new image{'s' * (new != 1)}, {known:,} known{gone}"
        return f"{self.name}: {count}; model {self.model.digest} with classes {', '.join(self.model.classes)}"


@dataclass(frozen=True)
class ClassificationPlan:
    """Plan of a job of `mode: classify`."""

    job: Job
    root: Folder
    products: tuple[ProductPlan, ...]
    published: Published
    discovery: Folder | None = None  # run folder of the discovery that made the models, if it is of the same job
    left_out: Mapping[str, str] = field(default_factory=dict)  # why products without a usable model are not classified
    warnings: Sequence[str] = ()

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
        left_out = [f"{name}: not classified: {reason}" for name, reason in self.left_out.items()]
        return [*left_out, *(line for product in self.products for line in product.describe())]

    @property
    def run_folder(self) -> Folder:
        """Folder of the run's record and report; the same for the same archive, models and job."""
        ends = [[product.name, product.keep, *product.states] for product in self.products]
        discovery = self.discovery.uri.rpartition("/")[2] if self.discovery else None
        return self.root / "runs" / f"{self.job.name}-{digest([ends, discovery])[:12]}"


def make(job: Job) -> ClassificationPlan:
    """List the archive, find the models, and plan the steps; no image is opened.

    Raises
    ------
    JobError
        The job cannot run; the message has one line for each problem.
    """
    job = resolve_root(job)
    assert job.model is not None
    root, archive = Folder(job.output_root), Archive(job.data.root)
    published, classes = Published.read(root), read_classes(root)
    problems: list[str] = []
    products, left_out, warnings = [], {}, []
    for product in job.data.products:
        try:
            model, said = find_pinned(root, job.model, product.name, job.tracking.uri)
            model = extend_model(root, product.name, model, classes)
        except (ModelError, TrackingProblem) as error:
            left_out[product.name] = str(error)
            continue
        warnings += said
        try:
            products.append(_plan_product(job, product, model, published, archive))
        except (AncdError, LayoutError) as error:
            problems += str(error).splitlines()
    if problems or not products:
        raise JobError(*dict.fromkeys([*problems, *left_out.values()]))
    return ClassificationPlan(job, root, tuple(products), published, left_out=left_out, warnings=warnings)


def _plan_product(
    job: Job, product: ProductConfig, model: PinnedModel, published: Published, archive: Archive
) -> ProductPlan:
    listing = archive.product(product, model.detector.reads_maps)
    if model.detector.needs == "masks" and not any(image.has_mask for image in listing.images):
        raise JobError(f"product {product.name}: its model takes regions from masks, and the archive has none")
    compared = compare(published.root / FOLDER / product.name, listing)
    own = ProductPlan(product.name, model, listing, compared.divided, compared.deleted, job.keep)
    if not job.reclassify:
        own = replace(own, earlier=_find_earlier(own, published))
    return _add_work(own, published)


def _find_earlier(product: ProductPlan, published: Published) -> dict[int, PinnedModel]:
    """Find the partitions that are published with an earlier model, and not with the one of today."""
    names = [name for name in (published.root / "models").names() if name != product.model.digest]
    known = [each for each in product.partitions if not each.is_new and each.left]
    found = {}
    for partition in known if names else ():
        if published.knows(product.name, product.make_state(partition)):
            continue
        states = {name: make_state(product.name, partition, name) for name in names}
        own = next((name for name, state in states.items() if published.knows(product.name, state)), None)
        # with images that are gone now
        own = own or next((name for name in names if published.find_images(product.name, partition.id, name)), None)
        if own:
            found[partition.number] = pin_folder(published.root / "models" / own)
    return found


def make_of_others(plan: JobPlan) -> ClassificationPlan:
    """Plan the classification of the images that a finished discovery did not look at.

    Raises
    ------
    ModelError
        The run folder of the discovery has no models.
    """
    products, published = [], Published.read(plan.root)
    for product in plan.products:
        sample = product.sample
        model = pin_model(plan.run_folder.uri, product.name)
        partitions = sorted([*sample.others, sample.partition], key=lambda each: each.number)
        deleted, keep = sample.compared.deleted, plan.job.keep
        own = ProductPlan(product.name, model, product.listing, partitions, deleted, keep, sample.partition)
        products.append(_add_work(own, published))
    return ClassificationPlan(plan.job, plan.root, tuple(products), published, plan.run_folder)


def find_plan_of_others(plan: JobPlan) -> list[ClassificationPlan]:
    """Plan the same, if there are others and the discovery is finished; else the list is empty."""
    return [] if plan.is_all or not plan.run_folder.exists(RECORD) else [make_of_others(plan)]


def _add_work(product: ProductPlan, published: Published) -> ProductPlan:
    """Add what has to be done with the partitions that published tables do not have as they are today."""
    to_classify: list[Partition] = []
    to_republish: list[Partition] = []
    for state, partition in product.states.items():
        if partition is product.discovered or published.has(product.name, state, partition.left):
            continue
        # another hand has changed the rows, or nobody has published some
        is_unknown = partition.is_new or product.name in published.damaged or published.knows(product.name, state)
        there = (
            set()
            if is_unknown
            else published.find_images(product.name, partition.id, product.model_of(partition).digest)
        )
        is_there = there and partition.read_images() - partition.gone <= there
        (to_republish if is_there else to_classify).append(partition)
    steps = [product.make_step(partition, published.root) for partition in to_classify]
    return replace(product, to_classify=to_classify, steps=steps, to_republish=to_republish)
