"""Layouts of archives: a module per layout, with its keys in the job file and the function that lists its images.

A new layout needs a module and an entry in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ancd_ray.data.layouts import coco, folder, labelme, manifest, mtd, mvtec, visa
from ancd_ray.data.layouts.account import Account, make_account
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.tree import Tree
from ancd_ray.data.roles import ListedImage

LAYOUTS: dict[type[ProductConfig], Callable[[Any, Tree], Iterator[ListedImage]]] = {
    mvtec.MvtecProduct: mvtec.list_images,
    visa.VisaProduct: visa.list_images,
    coco.CocoProduct: coco.list_images,
    labelme.LabelmeProduct: labelme.list_images,
    mtd.MtdProduct: mtd.list_images,
    folder.FolderProduct: folder.list_images,
    manifest.ManifestProduct: manifest.list_images,
}

__all__ = ["LAYOUTS", "Account", "LayoutError", "Listing", "ProductConfig", "Tree", "list_product"]


class Listing(NamedTuple):
    """The images of a product, in the order of their paths, and an account of its files."""

    images: list[ListedImage]
    account: Account


def list_product(product: ProductConfig, root: str) -> Listing:
    """List every image of a product, without the classes it excludes.

    Raises
    ------
    LayoutError
        The folder is missing, or has no image of the layout.
    """
    tree = Tree(root, product.path)
    found = list(LAYOUTS[type(product)](product, tree))
    listed = [image for image in found if image.label not in product.exclude]
    if not listed:
        raise LayoutError(f"product {product.name}: no image of layout {product.layout!r} in {tree.uri}")
    images = sorted(listed, key=lambda image: image.path)
    return Listing(images, make_account(tree, images, len(found) - len(images)))
