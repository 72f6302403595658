"""The form in which models are stored; see `model.py`. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ancd_ray.config.errors import AncdError
from ancd_ray.config.sections import BackboneConfig

if TYPE_CHECKING:
    from ancd_ray.data.store import Folder

FORMAT = 5
DOCUMENT = "model.json"


class ModelError(AncdError):
    """A model cannot be loaded or used; the message is one line."""


def read_document(folder: Folder) -> dict[str, Any]:
    """Read `model.json` in the folder of a model.

    Raises
    ------
    ModelError
        It is no JSON document.
    """
    try:
        document = folder.read_json(DOCUMENT)
    except ValueError as error:  # no JSON, or no UTF-8
        raise ModelError(f"{folder}: {DOCUMENT} is damaged ({error}); run its discovery again") from error
    if not isinstance(document, dict):
        raise ModelError(f"{folder}: {DOCUMENT} is no document of a model; run its discovery again")
    return document


def read_backbone(document: Mapping[str, Any], weights: str | None = None) -> BackboneConfig:
    """Read the configuration of the backbone in `model.json`, with another weights file if one is given.

    Raises
    ------
    ValidationError, KeyError
        It is no configuration, or there is none.
    """
    own = {key: value for key, value in document["backbone"].items() if key != "digest"}
    return BackboneConfig.model_validate({**own, **({"weights": weights} if weights else {})})


def check_weights(product: str, backbone: str, installed: str, made_with: str) -> None:
    """Compare the digests of the weights that are there and of those that a model was made with.

    Raises
    ------
    ModelError
        They differ.
    """
    if installed != made_with:
        raise ModelError(
            f"model of {product}: the weights of {backbone} are not those it was made with (digest {installed[:12]}, "
            f"not {made_with[:12]}); use those, or run its discovery again"
        )
