"""COCO instances, as CVAT and Label Studio export them: one JSON file with polygons or run lengths, and its images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ancd_ray.data.layouts.annotations import AnnotationError, parse_document
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.coco_file import parse_coco
from ancd_ray.data.layouts.file_names import match_files
from ancd_ray.data.layouts.normals import find_normals, is_below
from ancd_ray.data.layouts.tree import Tree, stem
from ancd_ray.data.roles import ListedImage


class CocoProduct(ProductConfig):
    """Images, and a JSON file of COCO with their annotations."""

    layout: Literal["coco"]
    annotations: str | None = None  # the JSON file; null: the only one below `path`
    normals: str | None = None  # subfolder of normal images


def recognize(tree: Tree) -> dict[str, Any] | None:
    """Return the keys of a product with a JSON file that has `images` and `annotations`; None for any other."""
    if not tree.images():
        return None
    beside = {stem(path) for path in tree.images()}
    found = [path for path in tree.find(".json") if stem(path) not in beside]
    for path in found:
        try:
            if {"images", "annotations"} <= parse_document(tree.read(path), path).keys():
                return {"layout": "coco", **find_normals(tree)} | ({"annotations": path} if len(found) > 1 else {})
        except AnnotationError:
            continue
    return None


def list_images(product: CocoProduct, tree: Tree) -> Iterator[ListedImage]:
    """List the annotated images; the label is the category with the largest area, `good` without annotations."""
    file = product.annotations or _find_file(product, tree)
    if file not in tree.files:
        raise LayoutError(f"product {product.name}: {tree.uri_of(file)}: no such file")
    tree.files.take(file)
    try:
        coco = parse_coco(tree.read(file), file)
    except AnnotationError as error:
        raise LayoutError(f"product {product.name}: {error}") from error
    tree.notes += coco.notes
    normal_paths = [path for path in tree.images() if is_below(path, product.normals)]
    paths = [path for path in tree.images() if not is_below(path, product.normals)]
    matches = match_files([image.file_name for image in coco.images], paths)
    taken: set[str] = set()
    for image in coco.images:
        match = matches[image.file_name]
        label = product.name_label(image.label)
        problem = image.problem or match.reason
        name, uri = tree.path_of(image.file_name), tree.uri_of(image.file_name)
        if match.path is None:
            yield ListedImage(name, uri, "query", label, problem=problem or "no such file")
        elif match.path in taken:
            yield ListedImage(f"{name}#{len(taken)}", uri, "query", label, problem="listed more than once")
        else:
            taken.add(match.path)
            yield tree.make(match.path, "query", label, shapes=image.shapes, problem=problem)
    for path in normal_paths:
        yield tree.make(path, "normal", "good")
    for path in paths:
        if path not in taken:
            yield tree.make(path, "query")  # nobody has looked at it


def _find_file(product: CocoProduct, tree: Tree) -> str:
    found = tree.find(".json")
    if len(found) != 1:
        raise LayoutError(
            f"product {product.name}: {len(found)} JSON files in {tree.uri}; name the one of COCO with `annotations:`"
        )
    return found[0]
