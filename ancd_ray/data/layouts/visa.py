"""VisA as published: `Data/Images/{Normal,Anomaly}`, `Data/Masks/Anomaly`, and labels in `image_anno.csv`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.manifest_table import ManifestError
from ancd_ray.data.layouts.masks import Named, find_masks
from ancd_ray.data.layouts.tree import Tree, stem
from ancd_ray.data.layouts.visa_table import parse_visa
from ancd_ray.data.roles import GOOD, ListedImage

TABLE = "image_anno.csv"
_NORMALS = 200  # drafted jobs take half of the normal images for the detector, and at most this many


class VisaProduct(ProductConfig):
    """`Data/Images/{Normal,Anomaly}/*.JPG`, `Data/Masks/Anomaly/*.png`, `image_anno.csv`."""

    layout: Literal["visa"]
    normals: int = 0  # this many of the images of `Normal`, in the order of their names, are normal images of detectors


def recognize(tree: Tree) -> dict[str, Any] | None:
    """Return the keys of a product whose folder has `Images/Anomaly` and `Images/Normal`; None for any other."""
    data = "Data/" if tree.images("Data/Images") else ""
    normals = tree.images(f"{data}Images/Normal")
    if not normals or not tree.images(f"{data}Images/Anomaly"):
        return None
    return {"layout": "visa", "normals": min(_NORMALS, len(normals) // 2)}


def list_images(product: VisaProduct, tree: Tree) -> Iterator[ListedImage]:
    """List the images; without a table of labels, all defects are labelled `anomaly`."""
    data = "Data/" if tree.images("Data/Images") else ""
    labels = _read_labels(product, tree)
    paths = tree.images(f"{data}Images")
    named = {path: Named("", "", stem(path).rpartition("/")[2]) for path in paths if "/Anomaly/" in f"/{path}"}
    found = find_masks(named, tree.images(f"{data}Masks/Anomaly"), [f"{data}Masks/Anomaly/{{stem}}.*"])
    n_normals = 0
    for path in paths:
        if path in named:
            label = labels.get(path.rpartition("/")[2], "anomaly")
            yield tree.make(path, "query", product.name_label(label), found.masks.get(path, ()))
        elif "/Normal/" in f"/{path}":
            n_normals += 1
            yield tree.make(path, "normal" if n_normals <= product.normals else "query", GOOD)


def _read_labels(product: VisaProduct, tree: Tree) -> dict[str, str]:
    """Read the labels by name of the file."""
    if TABLE not in tree.files:
        return {}
    tree.files.take(TABLE)
    try:
        table = parse_visa(tree.read(TABLE), TABLE)
    except ManifestError as error:
        raise LayoutError(f"product {product.name}: {error}") from error
    return {row.uri.rpartition("/")[2]: row.label for row in table.rows if row.label}
