"""Writes the best settings of a sweep to a job file, as `overrides` of the products."""

from __future__ import annotations

from pathlib import Path

import yaml

from ancd_ray.config.load import parse
from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder

_HEADER = "# Made by ancd-ray from the sweep {folder}: each product has the settings that were best for it.\n"


def apply(folder: Folder, target: Path) -> list[str]:
    """Write the job file with the best settings of a sweep.

    Returns
    -------
    Products without a best setting, which keep the settings of the job.

    Raises
    ------
    StoreError
        The folder is not the folder of a sweep, or the file cannot be written.
    """
    if not (folder.exists("job.yaml") and folder.exists("sweep.parquet")):
        raise StoreError(f"{folder}: not the folder of a sweep; `ancd-ray submit` prints the one it made")
    document = parse(folder.read("job.yaml"), f"{folder}/job.yaml")
    found = {product["product"]: product["best"] for product in folder.read_json("summary.json")["products"]}
    document.pop("sweep", None)
    for product in document["data"]["products"]:
        if best := found.get(product["name"]):
            product["overrides"] = {**product["overrides"], **best}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    try:
        target.write_text(_HEADER.format(folder=folder) + text, "utf-8")
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror or error}") from error
    return sorted(name for name, best in found.items() if not best)
