"""Layouts of archives: a module per layout, with its keys in the job file and the function that lists its images.

A new layout needs a module and an entry in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ancd_ray.data.layouts import coco, folder, labelme, manifest, mtd, mvtec, visa
from ancd_ray.data.layouts.account import Account, make_account
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.tree import Tree
from ancd_ray.data.listed import ListedImages
from ancd_ray.data.roles import ListedImage


class Layout(NamedTuple):
    """Functions of a layout: the images of a product, and the keys of one whose folder looks like it."""

    list_images: Callable[[Any, Tree], Iterator[ListedImage]]
    recognize: Callable[[Tree], dict[str, Any] | None]


# A folder that several layouts recognize is of the first of them.
LAYOUTS: dict[type[ProductConfig], Layout] = {
    mvtec.MvtecProduct: Layout(mvtec.list_images, mvtec.recognize),
    visa.VisaProduct: Layout(visa.list_images, visa.recognize),
    mtd.MtdProduct: Layout(mtd.list_images, mtd.recognize),
    coco.CocoProduct: Layout(coco.list_images, coco.recognize),
    labelme.LabelmeProduct: Layout(labelme.list_images, labelme.recognize),
    manifest.ManifestProduct: Layout(manifest.list_images, manifest.recognize),
    folder.FolderProduct: Layout(folder.list_images, folder.recognize),
}

__all__ = ["LAYOUTS", "Account", "LayoutError", "Listing", "ProductConfig", "Tree", "list_product", "recognize"]


class Listing(NamedTuple):
    """The images of a product, in the order of their paths, and an account of its files."""

    images: ListedImages
    account: Account


def list_product(product: ProductConfig, root: str) -> Listing:
    """List every image of a product, without the classes it excludes.

    Raises
    ------
    LayoutError
        The folder is missing, or has no image of the layout.
    """
    tree = Tree(root, product.path)
    excluded = 0

    def take() -> Iterator[ListedImage]:
        nonlocal excluded
        for image in LAYOUTS[type(product)].list_images(product, tree):
            if image.label in product.exclude:
                excluded += 1
            else:
                yield image

    images = ListedImages.collect(take())
    if not images:
        raise LayoutError(f"product {product.name}: no image of layout {product.layout!r} in {tree.uri}")
    return Listing(images, make_account(tree, images, excluded))


def recognize(root: str) -> list[dict[str, Any]]:
    """Recognize the layout of a folder, or of the products in its subfolders.

    Returns
    -------
    list of dict
        The keys `layout` and `path` of each product, and those that its layout found; empty if there is no image.

    Raises
    ------
    LayoutError
        The folder is missing or cannot be read.
    """
    whole = Tree(root, ".")
    specific = [layout.recognize for config, layout in LAYOUTS.items() if config is not folder.FolderProduct]
    if keys := _recognize(whole, specific):
        return [keys]
    found = [(name, _recognize(Tree(root, name), specific)) for name in whole.folders()]
    if several := [{**keys, "path": name} for name, keys in found if keys]:
        return several
    keys = folder.recognize(whole)
    return [{"path": ".", **keys}] if keys else []


def _recognize(tree: Tree, layouts: Sequence[Callable[[Tree], dict[str, Any] | None]]) -> dict[str, Any] | None:
    found = next((keys for keys in (layout(tree) for layout in layouts) if keys), None)
    return {"path": ".", **found} if found else None
