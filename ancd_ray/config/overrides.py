"""Settings of single products: `products[].overrides`, and the resulting job of a product."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, assign, explain
from ancd_ray.data.layouts import ProductConfig

OWN = ("detector", "mebin", "backbone", "train", "merge", "classes", "unknown")  # sections that a product may override


def apply_overrides(job: Job, product: ProductConfig) -> Job:
    """Apply the detector and the overrides of a product to the job.

    Raises
    ------
    JobError
        Overrides are invalid; the message has one line for each.
    """
    own = job.model_copy(update={"detector": product.detector or job.detector})
    return override(own, product.overrides, f"data.products.{job.data.products.index(product)}.overrides")


def override(job: Job, values: Mapping[str, Any], where: str) -> Job:
    """Replace values of a job.

    Parameters
    ----------
    job
        The job.
    values
        New values by dotted key, such as `train.lambda`.
    where
        Location of the values in the job file, for error messages.

    Raises
    ------
    JobError
        Keys are unknown or values invalid; the message has one line for each.
    """
    if not values:
        return job
    problems = [f"{where}.{key}: {line}" for key in values if (line := _check_section(key))]
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
    """Return the value of a dotted key of a job."""
    node: Any = job.model_dump(mode="json", by_alias=True)
    for part in key.split("."):
        node = node[part]
    return node


def _check_section(key: str) -> str:
    """Return an error message if products cannot override the section of a key, else an empty string."""
    section = key.partition(".")[0]
    if section in OWN:
        return ""
    close = difflib.get_close_matches(section, OWN, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"a product can override {', '.join(OWN)}"
    known = section in Job.model_fields
    return f"{section} is the same for all products; {hint}" if known else f"unknown key; {hint}"
