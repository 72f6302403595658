"""Unlabelled images anywhere below a folder, with an optional subfolder of normal images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.tree import Tree
from ancd_ray.data.roles import ListedImage


class FolderProduct(ProductConfig):
    """Unlabelled images anywhere below `path`, with an optional subfolder of normal images."""

    layout: Literal["folder"]
    normals: str | None = None


def list_images(product: FolderProduct, tree: Tree) -> Iterator[ListedImage]:
    """List all images, without labels."""
    normals = f"{product.normals.strip('/')}/" if product.normals else None
    if normals and not tree.images(normals):
        raise LayoutError(f"product {product.name}: no image in its folder of normal ones, {tree.uri_of(normals)}")
    for path in tree.images():
        is_normal = normals is not None and path.startswith(normals)
        yield ListedImage(
            tree.path_of(path), tree.uri_of(path), "normal" if is_normal else "query", stamp=tree.stamp(path)
        )
