"""The JSON Schema of job files, for editors."""

from __future__ import annotations

from typing import Any

from ancd_ray.config.job import Job

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Any]:
    """Make the JSON Schema (2020-12) of a job file.

    Values may also be strings with variables, `${NAME}` or `${NAME:-default}`, which are replaced before validation.
    The schema does not cover this: an editor marks a number that is given by a variable as an error.
    """
    document = Job.model_json_schema(by_alias=True)
    return {"$schema": _DRAFT, "title": "ancd-ray job", **{k: v for k, v in document.items() if k != "title"}}
