"""Pairs precomputed anomaly maps with images.

`maps:` of a product is a folder whose files have the relative paths of the images, up to the suffix; or a template such
as `maps/{class}/{stem}_map.npy`; or a Parquet file, or folders with Parquet files, that name the images (see
`data/map_files.py`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import pyarrow.compute as pc

from ancd_ray.data.images import BadImage, is_image
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.masks import Named, find_masks
from ancd_ray.data.layouts.tree import Tree, find_twins, stem
from ancd_ray.data.listed import ListedImages
from ancd_ray.data.map_files import SUFFIXES, TABLE, make_row_uri, read_paths, split_row
from ancd_ray.data.roles import ListedImage

_SHOWN = 3
_UNCLEAR = "its anomaly map cannot be told apart from another"


class PairedMaps(NamedTuple):
    """Images with the URIs of their maps, and what a person should know before any work."""

    images: ListedImages
    notes: tuple[str, ...]


class _Found(NamedTuple):
    """The map of each image, and the images whose map is unclear.

    Maps are relative addresses, a file or a row of one: a million of them are two strings each.
    """

    find: Callable[[ListedImage], str | None]
    is_unclear: Callable[[ListedImage], bool]
    addresses: Iterable[str]  # all maps


def pair_maps(product: ProductConfig, root: str, listed: Sequence[ListedImage]) -> PairedMaps:
    """Pair the images of a product with its anomaly maps; stamps of images contain those of their maps.

    Raises
    ------
    LayoutError
        The folder is missing, a Parquet file is none of maps, or no map belongs to an image.
    """
    if product.maps is None:
        raise LayoutError(
            f"product {product.name}: detector.name precomputed needs `maps`, the folder of its anomaly maps"
        )
    folder, template = _split(product.maps)
    tree, below = Tree(root, folder), "" if product.layout == "manifest" else Tree(root, product.path).prefix
    if template.endswith(TABLE):
        tree.restrict_to([template])
    names = [name for name in sorted(tree.files) if posixpath.splitext(name)[1].lower() in SUFFIXES | {TABLE}]
    if "{" in template:
        found = _match(product, listed, below, names, template)
    else:
        found = _look_up(product, listed, below, tree, names)

    def locate(address: str) -> tuple[str, str]:
        file, row = split_row(address)
        return file, tree.uri_of(file) if row is None else make_row_uri(tree.uri_of(file), row)

    def pair(image: ListedImage) -> ListedImage:
        address = found.find(image)
        if address is None:
            return image
        if found.is_unclear(image):
            return replace(image, problem=image.problem or _UNCLEAR)
        file, uri = locate(address)
        return replace(image, stamp=f"{image.stamp} {tree.stamp(file)}".strip(), map_uri=uri)

    def expect(image: ListedImage) -> str:
        path = image.path.removeprefix(below)
        return tree.uri_of(_fill(template, _name(product, image, path)) if "{" in template else f"{stem(path)}.npy")

    paired = ListedImages.collect(map(pair, listed))
    notes = _describe_missing(paired, expect)
    if not paired.column("map_uri").null_count < len(paired):
        raise LayoutError(f"product {product.name}: no map in {tree.uri} belongs to an image; {'; '.join(notes)}")
    if notes:
        notes += _describe_unused(paired, (locate(address)[1] for address in found.addresses))
    return PairedMaps(paired, tuple(notes))


def _split(maps: str) -> tuple[str, str]:
    """Split `maps:` into a folder and a template below it, or the name of a Parquet file."""
    if maps.lower().endswith(TABLE) and "{" not in maps:
        return posixpath.dirname(maps) or ".", posixpath.basename(maps)
    fixed, brace, rest = maps.partition("{")
    if not brace:
        return maps, ""
    folder, _, start = fixed.rpartition("/")
    return folder or ".", start + brace + rest


def _look_up(
    product: ProductConfig, listed: Sequence[ListedImage], below: str, tree: Tree, names: Sequence[str]
) -> _Found:
    """Find the maps whose paths are those of the images, up to the suffix."""
    files = [name for name in names if not name.endswith(TABLE)]
    maps = {stem(name): name for name in files}
    doubtful = {stem(name) for name in find_twins(files)}
    for path, address in _list_rows(product, tree, [name for name in names if name.endswith(TABLE)]):
        if path in maps:
            doubtful.add(path)
        maps[path] = address
    pictures = find_twins(image.path for image in listed)

    def name(image: ListedImage) -> str:
        own = stem(image.path.removeprefix(below))
        return own if own in maps else stem(image.path)  # rows may name images from the root

    return _Found(
        lambda image: maps.get(name(image)),
        lambda image: name(image) in doubtful or image.path in pictures,
        maps.values(),
    )


def _list_rows(product: ProductConfig, tree: Tree, tables: Sequence[str]) -> Iterator[tuple[str, str]]:
    """List the rows of Parquet files with the paths of their images, up to the suffix."""
    for table in tables:
        try:
            paths = read_paths(tree.uri_of(table))
        except BadImage as error:
            raise LayoutError(f"product {product.name}: maps: {tree.uri_of(table)} {error}") from error
        for row, path in enumerate(paths):
            yield (stem(path) if is_image(path) else path), make_row_uri(table, row)


def _match(
    product: ProductConfig, listed: Sequence[ListedImage], below: str, names: Sequence[str], template: str
) -> _Found:
    """Find the maps that a template names; images to be classified come first, normal ones may have none."""
    files = {name for name in names if not name.endswith(TABLE)}
    found: dict[str, str] = {}
    unclear: set[str] = set()
    for is_query in (True, False):
        own = [image for image in listed if (image.role == "query") == is_query]
        images = {image.path: _name(product, image, image.path.removeprefix(below)) for image in own}
        matched = find_masks(images, files - {*found.values()}, [template])
        unclear |= matched.ambiguous | {path for path, maps in matched.masks.items() if len(maps) > 1}
        found |= {path: maps[0] for path, maps in matched.masks.items()}
    return _Found(lambda image: found.get(image.path), lambda image: image.path in unclear, files)


def _name(product: ProductConfig, image: ListedImage, path: str) -> Named:
    """Return the parts of an image's path that templates refer to; a class is named as its folder is."""
    folder, _, file = path.rpartition("/")
    parts = folder.split("/")
    label = next((part for part in parts if product.name_label(part) == image.label), image.label)
    return Named(label or parts[-1], f"{folder}/" if folder else "", stem(file))


def _fill(template: str, named: Named) -> str:
    filled = template.replace("{class}", named.label).replace("{dir}", named.folder)
    return filled.replace("{stem}", named.stem)


def _describe_missing(images: ListedImages, expect: Callable[[ListedImage], str]) -> list[str]:
    """Describe which images to be classified have no map; nothing if all have one."""
    is_query = pc.equal(images.column("role"), "query")
    lacking = images.filter(pc.and_(is_query, images.column("map_uri").is_null()))
    if not len(lacking):
        return []
    shown = ", ".join(expect(image) for image in lacking[:_SHOWN])
    missing = f"{len(lacking):,} of {pc.sum(is_query).as_py():,} images to classify have no anomaly map"
    return [f"{missing} and go to quarantine; expected: {shown}{', ...' if len(lacking) > _SHOWN else ''}"]


def _describe_unused(images: ListedImages, uris: Iterable[str]) -> list[str]:
    """Describe which maps belong to no image, which may tell why others are missing."""
    used = set(images.column("map_uri").to_pylist())
    unused = [uri for uri in uris if uri not in used]
    return [f"{len(unused):,} maps belong to no image, such as {unused[0]}"] if unused else []
