"""Base class and common types of the sections of a job file."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # sha256
Share = Annotated[float, Field(ge=0, le=1)]
PRODUCT = "{product}"  # stands for the name of a product: in the place of a model, and in the name of a registered one


class Section(BaseModel):
    """A section of the job file: immutable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


S = TypeVar("S", bound=Section)


def reset_keys(section: S, *keys: str) -> S:
    """Set keys of a section to their defaults; `outer.inner` names a key of a section within.

    Stages are given sections in which every key without effect is reset. What is executed is then what is hashed, and
    a key without effect changes no fingerprint.
    """
    for key in keys:
        name, _, inner = key.partition(".")
        value = reset_keys(getattr(section, name), inner) if inner else type(section).model_fields[name].get_default()
        section = section.model_copy(update={name: value})
    return section
