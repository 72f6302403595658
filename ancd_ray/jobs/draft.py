"""Drafts a job file for a folder of images: recognizes the layout, and chooses what the images permit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ancd_ray.config.job import DataConfig
from ancd_ray.config.load import JobError
from ancd_ray.data.layouts import Account, LayoutError, list_product, recognize
from ancd_ray.data.layouts.peek import peek
from ancd_ray.data.location import Location
from ancd_ray.detectors import DETECTORS

VARIABLE = "ANCD_DATA"

_JOB = """\
# Drafted by `ancd-ray init`; `ancd-ray schema` lists all keys.
#   ancd-ray plan   {file}     accounts for every file, before any work
#   ancd-ray submit {file}
name: {name}

data:
  root: {root}
  products:
{products}
  # Labeled defects of another product, with masks, help to find the classes of this one:
  # base: {{name: base, layout: mvtec, path: ...}}

detector:
  name: {detector}     # patchcore learns from normal images, musc compares images with each other, ground_truth takes
      # masks for maps, precomputed reads maps, graph runs an exported detector (docs/detectors.md)

discovery:
  method: spectral     # clusters frozen features, in minutes; anomalyncd: the training of the paper
  symmetry: rotations     # a defect turned is of the same class; square: mirrored, too; none: neither

classes:
  novel: {novel}     # how many to look for, the normal one included: a number, from_labels, or auto (estimated)
  normal: auto     # is one of them normal: yes, no, or auto (as the labels say)

output: runs/{name}
"""


@dataclass(frozen=True)
class Draft:
    """A job file, and lines about what was found and about what it still lacks."""

    name: str
    text: str
    found: Sequence[str]
    lacks: Sequence[str]


def draft_job(folder: str, file: str | None = None, *, has_normals: bool = False, has_masks: bool = False) -> Draft:
    """Draft a job for the images of a folder or URI.

    Parameters
    ----------
    folder
        Folder or URI.
    file
        Name of the job file in its comments.
    has_normals, has_masks
        Whether there are some that are not recognized, for the choice of the detector.

    Raises
    ------
    JobError
        The folder is missing or has no image.
    """
    root = Location.parse(folder)
    name = _make_name(root.path, "images")
    products = _find_products(folder, name)
    accounts, lines, lacks = _look_into(products, folder)
    met = {
        product: (has_normals or bool(each.normals), has_masks or bool(each.masks))
        for product, each in accounts.items()
    }
    lines += [
        f"{product}: no normal images were recognized, so that images are compared with each other (musc); if there "
        "are any, name their folder with `normals:`, and patchcore learns from them"
        for product, (normals, masks) in met.items()
        if not (normals or masks)
    ]
    detectors = {product: _choose_detector(*each) for product, each in met.items()}
    chosen = list(detectors.values())
    detector = max(chosen, key=chosen.count, default=_choose_detector(has_normals, has_masks))
    for product in products:
        if detectors.get(product["name"], detector) != detector:
            product["detector"] = {"name": detectors[product["name"]]}
    labeled = len(accounts) == len(products) and all(set(account.labels) - {None} for account in accounts.values())
    text = _JOB.format(
        name=name,
        file=file or f"{name}.yaml",
        root=f"${{{VARIABLE}}}" if root.user or root.options else _quote(str(root)),
        products="\n".join(f"    - {_quote(product)}" for product in products),
        detector=detector,
        novel="from_labels" if labeled else "auto",
    )
    return Draft(name, text, lines, lacks)


def _find_products(folder: str, name: str) -> list[dict[str, Any]]:
    """Recognize the products of a folder: their keys, with a name for each."""
    try:
        found = recognize(folder)
    except LayoutError as error:
        raise JobError(str(error)) from error
    if not found:
        raise JobError(f"{Location.parse(folder)}: has no image of a known type; docs/inputs.md lists them")
    products: list[dict[str, Any]] = []
    for keys in found:
        own = _make_name(keys["path"], name)
        taken = [product["name"] for product in products]
        own = f"{own}-{len(taken)}" if own in taken else own
        products.append({"name": own, "layout": keys["layout"], "path": keys["path"], **keys})
    return products


def _look_into(products: Sequence[Mapping[str, Any]], folder: str) -> tuple[dict[str, Account], list[str], list[str]]:
    """List the files of products; returns their accounts, lines about each, and why some cannot be listed."""
    accounts: dict[str, Account] = {}
    lines: list[str] = []
    lacks: list[str] = []
    for config in DataConfig.model_validate({"root": folder, "products": products}).products:
        try:
            listing = list_product(config, folder)
        except LayoutError as error:
            lacks.append(str(error))
            continue
        accounts[config.name] = listing.account
        notes = (f"layout {config.layout}", *listing.account.describe(), *peek(listing.images, config))
        lines += [f"{config.name}: {note}" for note in notes]
    return accounts, lines, lacks


def draft_discovery(
    folder: str, detector: str | None = None, normals: str | None = None, masks: str | Sequence[str] | None = None
) -> dict[str, Any]:
    """Draft the content of a job file for a folder, with what is known of its products.

    Parameters
    ----------
    folder
        Folder or URI; credentials in it stay.
    detector
        Name of the detector of all products, in place of those that the images permit.
    normals, masks
        Keys of all products, in place of what was recognized.

    Raises
    ------
    JobError
        The folder is missing or has no image.
    """
    document: dict[str, Any] = yaml.safe_load(
        draft_job(folder, has_normals=normals is not None, has_masks=masks is not None).text
    )
    document["data"]["root"] = folder
    given = {"normals": normals, "masks": [masks] if isinstance(masks, str) else masks}
    for product in document["data"]["products"]:
        product |= {key: value for key, value in given.items() if value}
        if detector:
            product.pop("detector", None)
    return document | ({"detector": {"name": detector}} if detector else {})


def _choose_detector(has_normals: bool, has_masks: bool) -> str:
    """Choose the first detector that is proposed and whose needs are met."""
    met = {"nothing", "references", *(["normals"] if has_normals else []), *(["masks"] if has_masks else [])}
    return next(each.get_name() for each in DETECTORS if each.is_proposed and each.needs in met)


def _make_name(path: str, otherwise: str) -> str:
    """Return a name that resembles that of a folder or file."""
    stem = re.sub(r"\.(csv|tsv|parquet)$", "", path.rstrip("/").rpartition("/")[2], flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64] or otherwise


def _quote(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()
