"""Finds the folder of a model."""

from __future__ import annotations

from ancd_ray.data.store import Folder
from ancd_ray.models.format import DOCUMENT, ModelError


def find_model(place: str, product: str | None = None) -> str:
    """Find a model in a folder of its own, or in a run folder.

    Parameters
    ----------
    place
        Folder with `model.json`, or run folder with `models/<product>/`.
    product
        Product of a run; required if there are several.

    Raises
    ------
    ModelError
        There is no model, or there are several.
    """
    folder = Folder(place)
    if folder.exists(DOCUMENT):
        return folder.uri
    names = [name for name in (folder / "models").names() if (folder / "models" / name).exists(DOCUMENT)]
    if product is not None and product in names:
        return f"{folder}/models/{product}"
    if product is None and len(names) == 1:
        return f"{folder}/models/{names[0]}"
    if not names:
        raise ModelError(f"{place}: neither a model ({DOCUMENT}) nor a finished run (models/)")
    if product is None:
        raise ModelError(f"{place}: has models of {', '.join(names)}; say which with --product")
    raise ModelError(f"{place}: has no model of product {product!r}; there are {', '.join(names)}")
