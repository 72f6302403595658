"""MVTec AD: `train/good`, `test/<class>/NNN.png`, `ground_truth/<class>/NNN_mask.png`; `good` has no masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ancd_ray.data.layouts.base import ProductConfig
from ancd_ray.data.layouts.tree import TWINS, Tree, find_twins, stem
from ancd_ray.data.roles import ListedImage


class MvtecProduct(ProductConfig):
    """`train/good`, `test/<class>`, `ground_truth/<class>/<stem>_mask.png`."""

    layout: Literal["mvtec"]


def list_images(product: MvtecProduct, tree: Tree) -> Iterator[ListedImage]:  # noqa: ARG001
    """List `train/good` as normal images; the folders of `test` are labels."""
    for path in tree.images("train/good"):
        yield ListedImage(tree.path_of(path), tree.uri_of(path), "normal", "good", stamp=tree.stamp(path))
    tests = tree.images("test")
    ambiguous = find_twins(tests)
    masks = {stem(path): path for path in tree.images("ground_truth")}
    for path in tests:
        parts = path.split("/")
        if len(parts) != 3:  # test/<class>/<file>
            continue
        name = stem(path).removeprefix("test/")
        mask = masks.get(f"ground_truth/{name}_mask") or masks.get(f"ground_truth/{name}")
        problem = TWINS if path in ambiguous and mask else None
        yield ListedImage(
            tree.path_of(path),
            tree.uri_of(path),
            "query",
            parts[1],
            mask_uri=tree.uri_of(mask) if mask else None,
            stamp=tree.stamp(path, mask),
            problem=problem,
        )
