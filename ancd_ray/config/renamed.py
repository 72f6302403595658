"""Renamed keys of the job file; the old names are accepted for one release, with a warning of one line."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

RENAMED = {
    "detector.contrast": "map_gamma",
    "backbone.levels": "color_normalization",
    "classes.at_most": "max_classes",
}


class RenamedKeyWarning(FutureWarning):
    """A job file uses an old name of a key."""


def rename_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Replace old names of keys in a parsed job file: in sections, products, their overrides, and sweeps.

    Raises
    ------
    ValueError
        A key is given under both names.
    """
    tree = _rename_sections(document, "")
    if isinstance(sweep := tree.get("sweep"), Mapping):
        tree["sweep"] = {**sweep, "parameters": _rename_dotted(sweep.get("parameters"), "sweep.parameters")}
    if isinstance(data := tree.get("data"), Mapping):
        tree["data"] = dict(data)
        if isinstance(products := data.get("products"), list):
            tree["data"]["products"] = [_rename_product(each, f"data.products.{i}") for i, each in enumerate(products)]
        if isinstance(data.get("base"), Mapping):
            tree["data"]["base"] = _rename_product(data["base"], "data.base")
    return tree


def _rename_product(product: Any, where: str) -> Any:
    if not isinstance(product, Mapping):
        return product
    tree = _rename_sections(product, f"{where}.")
    if "overrides" in tree:
        tree["overrides"] = _rename_dotted(tree["overrides"], f"{where}.overrides")
    return tree


def _rename_sections(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    tree = dict(document)
    for key, new in RENAMED.items():
        section, _, old = key.partition(".")
        node = tree.get(section)
        if isinstance(node, Mapping) and old in node:
            tree[section] = _rename(node, old, new, f"{where}{section}.")
    return tree


def _rename_dotted(node: Any, where: str) -> Any:
    """Replace old names in a mapping with dotted keys; overrides on the command line may have nested them."""
    if not isinstance(node, Mapping):
        return node
    tree = _rename_sections(node, f"{where}.")
    for key, new in RENAMED.items():
        if key in tree:
            tree = _rename(tree, key, f"{key.partition('.')[0]}.{new}", f"{where}.")
    return tree


def _rename(node: Mapping[str, Any], old: str, new: str, where: str) -> dict[str, Any]:
    if new in node:
        raise ValueError(f"{where}{old}: is the old name of {new}, which is given too; keep one")
    warnings.warn(f"{where}{old} is now called {new}; the next release removes the old name", RenamedKeyWarning, 2)
    return {new if key == old else key: value for key, value in node.items()}
