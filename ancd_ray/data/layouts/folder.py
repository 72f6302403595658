"""Images anywhere below a folder, with an optional subfolder of normal images, and optional masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.masks import FoundMasks, Named, find_masks
from ancd_ray.data.layouts.tree import TWINS, Tree, stem
from ancd_ray.data.roles import ListedImage, Role


class FolderProduct(ProductConfig):
    """Unlabelled images anywhere below `path`, with an optional subfolder of normal images."""

    layout: Literal["folder"]
    normals: str | None = None
    masks: str | tuple[str, ...] | None = None  # patterns, such as `masks/{dir}{stem}.png`


def list_images(product: FolderProduct, tree: Tree) -> Iterator[ListedImage]:
    """List all images, without labels; files that are masks are no images."""
    normals = f"{product.normals.strip('/')}/" if product.normals else None
    if normals and not tree.images(normals):
        raise LayoutError(f"product {product.name}: no image in its folder of normal ones, {tree.uri_of(normals)}")
    paths = tree.images()
    found = FoundMasks({}, frozenset())
    if product.masks:
        named = {
            path: Named("", path.rpartition("/")[0] and path.rpartition("/")[0] + "/", _name(path)) for path in paths
        }
        patterns = [product.masks] if isinstance(product.masks, str) else product.masks
        found = find_masks(named, paths, patterns)
        if not found.masks:
            raise LayoutError(f"product {product.name}: no file in {tree.uri} fits masks: {', '.join(patterns)}")
    masks = {mask for several in found.masks.values() for mask in several}
    for path in paths:
        if path in masks:
            continue
        role: Role = "normal" if normals is not None and path.startswith(normals) else "query"
        problem = TWINS if path in found.ambiguous else None
        yield tree.make(path, role, masks=found.masks.get(path, ()), problem=problem)


def _name(path: str) -> str:
    return stem(path).rpartition("/")[2]
