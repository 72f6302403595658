"""Images anywhere below a folder, with an optional subfolder of normal images, and optional masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.masks import FoundMasks, Named, find_masks
from ancd_ray.data.layouts.normals import find_normals, is_below
from ancd_ray.data.layouts.tree import TWINS, Tree, stem
from ancd_ray.data.roles import ListedImage, Role

_MASK_FOLDERS = ("masks", "mask", "ground_truth", "gt")


class FolderProduct(ProductConfig):
    """Unlabelled images anywhere below `path`, with an optional subfolder of normal images."""

    layout: Literal["folder"]
    normals: str | None = None
    masks: str | tuple[str, ...] | None = None  # patterns, such as `masks/{dir}{stem}.png`


def recognize(tree: Tree) -> dict[str, Any] | None:
    """Return the keys of a product with any images; None without one."""
    paths = tree.images()
    if not paths:
        return None
    keys: dict[str, Any] = {"layout": "folder", **find_normals(tree)}
    folders = [name for name in tree.folders() if name.casefold() in _MASK_FOLDERS]
    patterns = [f"{name}/{form}.*" for name in folders for form in ("{dir}{stem}", "{stem}", "{stem}_mask")]
    if any(_name(path).endswith("_mask") for path in paths):
        patterns.append("{dir}{stem}_mask.*")
    return keys | ({"masks": patterns} if patterns else {})


def list_images(product: FolderProduct, tree: Tree) -> Iterator[ListedImage]:
    """List all images, without labels; files that are masks are no images."""
    paths = tree.images()
    if product.normals and not any(is_below(path, product.normals) for path in paths):
        place = tree.uri_of(product.normals)
        raise LayoutError(f"product {product.name}: no image in its folder of normal ones, {place}")
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
        role: Role = "normal" if is_below(path, product.normals) else "query"
        problem = TWINS if path in found.ambiguous else None
        yield tree.make(path, role, masks=found.masks.get(path, ()), problem=problem)


def _name(path: str) -> str:
    return stem(path).rpartition("/")[2]
