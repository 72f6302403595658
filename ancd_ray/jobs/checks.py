"""What cannot work is said before any work: each check gives the lines that people will read, or none."""

from __future__ import annotations

from collections.abc import Sequence

from ancd_ray.config.job import Job
from ancd_ray.data.layouts import ProductConfig
from ancd_ray.data.roles import ListedImage


def base_problems(base: ProductConfig, listing: Sequence[ListedImage]) -> list[str]:
    """A base set needs labels, and masks that show where its defects are."""
    if not listing:
        return [f"data.base: product {base.name} has no labelled defect image"]
    if any(image.label is None for image in listing):
        return [f"data.base: product {base.name} has images without a label; a base set is labelled"]
    if not any(image.mask_uri for image in listing):
        return [f"data.base: product {base.name} has no masks; a base set shows where its defects are"]
    return []


def detector_problems(job: Job, product: ProductConfig, listing: Sequence[ListedImage]) -> list[str]:
    """A detector (of the job as it is for the product) needs what it learns from, or what it takes for maps."""
    if not any(image.role == "query" for image in listing):
        return [f"product {product.name}: all of its images are normal ones; there is nothing to sort"]
    return job.detector.find_problems(product.name, listing)


def training_problems(job: Job) -> list[str]:
    """Every worker needs as many novel as base regions of a batch."""
    each = job.train.batch_size / job.train.workers
    if each != int(each) or (job.data.base and each % 2) or each < 2:
        return [
            f"train.batch_size={job.train.batch_size} cannot be shared by train.workers={job.train.workers}: every "
            "worker needs as many novel as base regions; take a multiple of twice the workers"
        ]
    return []


def device_problems(job: Job, is_remote: bool) -> list[str]:
    """Ray believes what it is told of this machine's GPUs, and then waits for ever."""
    if is_remote or not job.resources.gpus:
        return []
    import torch

    if job.resources.gpus > (have := torch.cuda.device_count()):
        return [f"resources.gpus={job.resources.gpus}: this machine has {have}"]
    return []
