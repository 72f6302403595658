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
    models = _list_models(folder)
    names = list(models)
    if product is not None and product in names:
        return models[product].uri
    if product is None and len(names) == 1:
        return models[names[0]].uri
    if not names:
        raise ModelError(f"{place}: neither a model ({DOCUMENT}) nor a finished run (models/)")
    if product is None:
        raise ModelError(f"{place}: has models of {', '.join(names)}; say which: --product, or product= in Python")
    raise ModelError(f"{place}: has no model of product {product!r}; there are {', '.join(names)}")


def _list_models(run: Folder) -> dict[str, Folder]:
    """List the models of a run by product: those that it made, or those that it applied."""
    made = {name: run / "models" / name for name in (run / "models").names()}
    if not made and run.exists("run.json"):
        record = run.read_json("run.json")
        if record.get("mode") == "classify":
            made = {name: run.parent.parent / "models" / digest for name, digest in record["products"].items()}
    return {name: folder for name, folder in made.items() if folder.exists(DOCUMENT)}
