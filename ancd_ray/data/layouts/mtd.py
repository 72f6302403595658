"""Magnetic Tile Defects as published: `MT_<Class>/Imgs/*.jpg`, with `.png` masks; `MT_Free` has no defects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal

from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.tree import TWINS, Tree, find_twins, stem
from ancd_ray.data.roles import ListedImage

FREE = "MT_Free"


class MtdProduct(ProductConfig):
    """`MT_<Class>/Imgs/*.jpg` with `.png` masks of the same names; the images of `MT_Free` are normal."""

    layout: Literal["mtd"]
    normals: str | None = None  # list of the normal training files, one name per line; the other free images are tests


def recognize(tree: Tree) -> dict[str, Any] | None:
    """Return the keys of a product whose folder has images in `MT_<Class>/Imgs`; None for any other."""
    if not any(map(_parse_class, tree.images())):
        return None
    lists = [path for path in tree.find(".txt") if "/" not in path]
    return {"layout": "mtd"} | ({"normals": lists[0]} if len(lists) == 1 else {})


def list_images(product: MtdProduct, tree: Tree) -> Iterator[ListedImage]:
    """List the JPEGs; the label is the class of the folder in lower case, `good` for `MT_Free`."""
    pictures = [path for path in tree.images() if _parse_class(path) and path.lower().endswith((".jpg", ".jpeg"))]
    masks = {stem(path): path for path in tree.images() if path.lower().endswith(".png")}
    ambiguous = find_twins(pictures)
    train = _read_train_normals(product, tree, pictures)
    for path in pictures:
        name = _parse_class(path)
        mask = masks.get(stem(path)) if name != "free" else None
        yield tree.make(
            path,
            "normal" if name == "free" and PurePosixPath(path).name in train else "query",
            "good" if name == "free" else name,
            [mask] if mask else (),
            problem=TWINS if path in ambiguous else None,
        )


def _parse_class(path: str) -> str:
    parts = path.split("/")
    is_tile = len(parts) == 3 and parts[0].startswith("MT_") and parts[1] == "Imgs"
    return parts[0].removeprefix("MT_").lower() if is_tile else ""


def _read_train_normals(product: MtdProduct, tree: Tree, pictures: list[str]) -> set[str]:
    """Read the names of the normal training files.

    Raises
    ------
    LayoutError
        A listed file is not among the free images.
    """
    if product.normals is None:
        return set()
    listed = {PurePosixPath(line.strip()).name for line in tree.read_text(product.normals).splitlines() if line.strip()}
    free = {PurePosixPath(path).name for path in pictures if path.startswith(FREE)}
    if strangers := sorted(listed - free):
        raise LayoutError(
            f"product {product.name}: {product.normals} names {strangers[0]!r}, which is not in {FREE}/Imgs"
        )
    return listed
