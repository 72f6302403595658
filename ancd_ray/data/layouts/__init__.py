"""How archives lie on disk: one file a layout, each a function from a product's folder to its listed images.

`mvtec`, `mtd`, `folder` and `manifest` are the layouts a job file can name; a new one is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ancd_ray.config.job import Product
from ancd_ray.data.layouts import folder, manifest, mtd, mvtec
from ancd_ray.data.layouts.tree import LayoutError, Listed, Tree

_LAYOUTS: dict[str, Callable[[Any, Tree], Iterator[Listed]]] = {
    "mvtec": mvtec.images,
    "mtd": mtd.images,
    "folder": folder.images,
    "manifest": manifest.images,
}

__all__ = ["LayoutError", "Listed", "Tree", "list_product"]


def list_product(product: Product, root: str) -> list[Listed]:
    """Every image of a product, without the classes it excludes, in the order of its relative paths.

    Raises:
        LayoutError: the folder is missing, or holds nothing of this layout.
    """
    tree = Tree(root, product.path)
    listed = [image for image in _LAYOUTS[product.layout](product, tree) if image.label not in product.exclude]
    if not listed:
        raise LayoutError(f"product {product.name}: no image of layout {product.layout!r} in {tree.uri}")
    return sorted(listed, key=lambda image: image.path)
