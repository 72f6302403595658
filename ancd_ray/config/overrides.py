"""A product's own settings: `products[].overrides` on top of the job, and the job that comes of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, assign, explain
from ancd_ray.data.layouts import ProductConfig

OWN = ("detector", "mebin", "backbone", "train", "merge", "classes")  # sections that a product may change


def effective(job: Job, product: ProductConfig) -> Job:
    """The job as it is for one product: its own detector, and its overrides.

    Raises:
        JobError: an override is wrong; all of them at once.
    """
    own = job.model_copy(update={"detector": product.detector or job.detector})
    return overridden(own, product.overrides, f"data.products.{job.data.products.index(product)}.overrides")


def overridden(job: Job, values: Mapping[str, Any], where: str) -> Job:
    """The job with other values at some dotted keys; `where` says in errors who asks for them.

    Raises:
        JobError: a key is unknown, or its value cannot be; all of them at once.
    """
    if not values:
        return job
    problems = [f"{where}.{key}: {line}" for key in values if (line := _foreign(key))]
    tree = job.model_dump(include=set(OWN), by_alias=True, exclude_unset=True)
    for key, value in values.items():
        try:
            assign(tree, key, value)
        except ValueError as error:
            problems.append(f"{where}.{key}: {error}")
    if problems:
        raise JobError(*problems)
    shell = {"name": job.name, "data": {"root": ".", "products": [{"name": "p", "layout": "folder"}]}}
    try:
        checked = Job.model_validate({**shell, **tree})
    except ValidationError as error:
        raise JobError(*(f"{where}.{line}" for line in explain(error))) from error
    return job.model_copy(update={section: getattr(checked, section) for section in OWN})


def value_at(job: Job, key: str) -> Any:
    """The value of a dotted key of a job."""
    node: Any = job.model_dump(mode="json", by_alias=True)
    for part in key.split("."):
        node = node[part]
    return node


def _foreign(key: str) -> str:
    """What is wrong with a key that no product can have for itself; nothing otherwise."""
    section = key.partition(".")[0]
    if section in OWN:
        return ""
    close = difflib.get_close_matches(section, OWN, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"a product has its own {', '.join(OWN)}"
    known = section in Job.model_fields
    return f"{section} is the same for all products; {hint}" if known else f"unknown key; {hint}"
