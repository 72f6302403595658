"""Layouts of archives: a module per layout, with its keys in the job file and the function that lists its images.

A new layout needs a module and an entry in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ancd_ray.data.layouts import folder, manifest, mtd, mvtec
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.tree import Tree
from ancd_ray.data.roles import ListedImage

LAYOUTS: dict[type[ProductConfig], Callable[[Any, Tree], Iterator[ListedImage]]] = {
    mvtec.MvtecProduct: mvtec.list_images,
    mtd.MtdProduct: mtd.list_images,
    folder.FolderProduct: folder.list_images,
    manifest.ManifestProduct: manifest.list_images,
}

__all__ = ["LAYOUTS", "LayoutError", "ProductConfig", "Tree", "list_product"]


def list_product(product: ProductConfig, root: str) -> list[ListedImage]:
    """List every image of a product, without the classes it excludes, in the order of its relative paths.

    Raises
    ------
    LayoutError
        The folder is missing, or has no image of the layout.
    """
    tree = Tree(root, product.path)
    images = LAYOUTS[type(product)](product, tree)
    listed = [image for image in images if image.label not in product.exclude]
    if not listed:
        raise LayoutError(f"product {product.name}: no image of layout {product.layout!r} in {tree.uri}")
    return sorted(listed, key=lambda image: image.path)
