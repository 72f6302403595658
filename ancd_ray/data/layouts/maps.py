"""Pairs precomputed anomaly maps with images by their relative paths without suffixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.tree import Tree, find_twins, stem
from ancd_ray.data.listed import ListedImages
from ancd_ray.data.roles import ListedImage

SUFFIXES = frozenset({".npy", ".png", ".tif", ".tiff"})


def pair_maps(product: ProductConfig, root: str, listed: Sequence[ListedImage]) -> ListedImages:
    """Pair the images of a product with its anomaly maps; returns them with the URIs and the stamps of their maps.

    Raises
    ------
    LayoutError
        The folder is missing, or none of its maps belongs to an image.
    """
    if product.maps is None:
        raise LayoutError(
            f"product {product.name}: detector.name precomputed needs `maps`, the folder of its anomaly maps"
        )
    tree = Tree(root, product.maps)
    found = [name for name in sorted(tree.files) if PurePosixPath(name).suffix.lower() in SUFFIXES]
    ambiguous = {stem(name) for name in find_twins(found)}
    by_stem = {stem(name): name for name in found}
    below = "" if product.layout == "manifest" else Tree(root, product.path).prefix
    pictures = find_twins(image.path for image in listed)

    def pair(image: ListedImage) -> ListedImage:
        name = stem(image.path.removeprefix(below))
        if name in ambiguous or (name in by_stem and image.path in pictures):
            return replace(image, problem=image.problem or "its anomaly map cannot be told apart from another")
        own = by_stem.get(name)
        stamp = f"{image.stamp} {tree.stamp(own)}".strip()
        return replace(image, stamp=stamp, map_uri=tree.uri_of(own) if own else None)

    paired = ListedImages.collect(map(pair, listed))
    if not paired.column("map_uri").null_count < len(paired):
        raise LayoutError(
            f"product {product.name}: no map in {tree.uri} belongs to an image; "
            "the map of a/b.png is a/b.npy, .png or .tiff"
        )
    return paired
