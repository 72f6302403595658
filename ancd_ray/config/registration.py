"""Names and aliases of models in MLflow's registry, and the key `tracking.register` of a job file."""

from __future__ import annotations

import re

from pydantic import field_validator

from ancd_ray.config.base import PRODUCT, Section

CHAMPION, PREVIOUS = "champion", "previous"  # aliases: the version in use, and the one before it


def check_model_name(name: str) -> str:
    """Check a name for MLflow's registry, which becomes a part of URIs; {product} in it is the product's name.

    Raises
    ------
    ValueError
        It has other characters, or is too long.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name.replace(PRODUCT, "p")):
        raise ValueError("a registered name has letters, digits, `.`, `_` and `-`, 128 at most, and may have {product}")
    return name


def check_alias(alias: str) -> str:
    """Check an alias of a registered version.

    Raises
    ------
    ValueError
        MLflow has no such alias, or it is `previous`, which rollbacks need.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", alias) or re.fullmatch(r"(?i)latest|v\d+", alias):
        raise ValueError("an alias has letters, digits, `_` and `-`, and is neither `latest` nor `v1`")
    if alias == PREVIOUS:
        raise ValueError(f"the alias `{PREVIOUS}` is set when a version becomes the {CHAMPION}; give another one")
    return alias


class RegisterConfig(Section):
    """The name and the alias under which the model of each product is registered."""

    name: str | None = None  # null: <job>.<product>; {product} is the product's name
    alias: str = CHAMPION

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str | None) -> str | None:
        return None if value is None else check_model_name(value)

    @field_validator("alias")
    @classmethod
    def _check_alias(cls, value: str) -> str:
        return check_alias(value)

    def name_model(self, job: str, product: str) -> str:
        """Return the registered name of the model of a product."""
        return f"{job}.{product}" if self.name is None else self.name.replace(PRODUCT, product)
