"""Unlabelled images anywhere below a folder; the normal ones, if any, in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator

from ancd_ray.config.job import FolderProduct
from ancd_ray.data.layouts.tree import LayoutError, Listed, Tree


def images(product: FolderProduct, tree: Tree) -> Iterator[Listed]:
    """All images; nobody has labelled them."""
    normals = f"{product.normals.strip('/')}/" if product.normals else None
    if normals and not tree.images(normals):
        raise LayoutError(f"product {product.name}: no image in its folder of normal ones, {tree.uri_of(normals)}")
    for path in tree.images():
        role = "normal" if normals and path.startswith(normals) else "novel"
        yield Listed(tree.path_of(path), tree.uri_of(path), role, stamp=tree.stamp(path))
