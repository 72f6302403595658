"""Checks of a job before any step runs; most return error messages of one line, or an empty list."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import pyarrow.compute as pc

from ancd_ray.config.job import Job
from ancd_ray.data.layouts import ProductConfig
from ancd_ray.data.listed import ListedImages
from ancd_ray.data.roles import Classes, ListedImage
from ancd_ray.engine.runtime import RuntimeProblem


def check_base(base: ProductConfig, listing: Sequence[ListedImage]) -> list[str]:
    """Check that a base set has labels and masks."""
    if not listing:
        return [f"data.base: product {base.name} has no labelled defect image"]
    if any(image.label is None for image in listing):
        return [f"data.base: product {base.name} has images without a label; a base set is labelled"]
    if not any(image.has_mask for image in listing):
        return [f"data.base: product {base.name} has no masks; a base set shows where its defects are"]
    return []


def check_detector(job: Job, product: ProductConfig, listing: Sequence[ListedImage]) -> list[str]:
    """Check that a product has what the detector needs: images to classify, and normal images, masks or maps."""
    if not any(image.role == "query" for image in listing):
        return [f"product {product.name}: all of its images are normal ones; there is nothing to sort"]
    return job.detector.find_problems(product.name, listing)


def check_classes(product: str, classes: Classes, listing: Sequence[ListedImage]) -> list[str]:
    """Check that there are not more classes to look for than images."""
    images = pc.sum(pc.equal(ListedImages.collect(listing).column("role"), "query")).as_py() or 0
    if images and classes.n_novel > images:
        return [f"product {product}: classes.novel={classes.n_novel} is more than its {images} images to classify"]
    return []


def check_training(job: Job) -> list[str]:
    """Check that a batch divides into equal numbers of novel and base regions for every training worker."""
    each = job.train.batch_size / job.train.workers
    if each != int(each) or (job.data.base and each % 2) or each < 2:
        return [
            f"train.batch_size={job.train.batch_size} cannot be shared by train.workers={job.train.workers}: every "
            "worker needs as many novel as base regions; take a multiple of twice the workers"
        ]
    return []


def check_devices(job: Job, is_remote: bool) -> list[str]:
    """Check that this machine has `resources.gpus` GPUs; Ray does not check it and would wait forever."""
    if is_remote or not job.resources.gpus:
        return []
    import torch

    if job.resources.gpus > (have := torch.cuda.device_count()):
        return [f"resources.gpus={job.resources.gpus}: this machine has {have}"]
    return []


def check_ray(address: str | None) -> None:
    """Check that something answers at `host:port`; Ray itself waits for a minute and a half.

    Raises
    ------
    RuntimeProblem
        Nothing answers.
    """
    place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address or ""
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        return  # to be found by Ray
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RuntimeProblem(f"Ray at {place} does not answer: {error}") from error
