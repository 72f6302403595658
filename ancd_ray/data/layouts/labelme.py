"""LabelMe: a JSON file with shapes beside each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ancd_ray.data.layouts.annotations import AnnotationError, parse_document
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.labelme_file import parse_labelme
from ancd_ray.data.layouts.normals import find_normals, is_below
from ancd_ray.data.layouts.tree import Tree, stem
from ancd_ray.data.roles import ListedImage


class LabelmeProduct(ProductConfig):
    """Images, each with a JSON file of LabelMe of the same name."""

    layout: Literal["labelme"]
    normals: str | None = None  # subfolder of normal images


def recognize(tree: Tree) -> dict[str, Any] | None:
    """Return the keys of a product with a JSON file with `shapes` beside an image; None for any other."""
    beside = {stem(path) for path in tree.images()}
    document = next((path for path in tree.find(".json") if stem(path) in beside), None)
    try:
        if document is None or "shapes" not in parse_document(tree.read(document), document):
            return None
    except AnnotationError:
        return None
    return {"layout": "labelme", **find_normals(tree)}


def list_images(product: LabelmeProduct, tree: Tree) -> Iterator[ListedImage]:
    """List the images; the label is that of the largest shape, `good` without shapes, none without a JSON file."""
    documents = {stem(path): path for path in tree.find(".json")}
    if not documents:
        raise LayoutError(f"product {product.name}: no JSON file of LabelMe in {tree.uri}")
    for path in tree.images():
        if is_below(path, product.normals):
            yield tree.make(path, "normal", "good")
            continue
        document = documents.get(stem(path))
        if document is None:
            yield tree.make(path, "query")
            continue
        tree.files.take(document)
        try:
            parsed = parse_labelme(tree.read(document), document)
        except AnnotationError as error:
            yield tree.make(path, "query", problem=str(error).splitlines()[0])
            continue
        yield tree.make(path, "query", product.name_label(parsed.label), shapes=parsed.shapes)
