"""MVTec AD: `train/good`, `test/<class>/NNN.png`, `ground_truth/<class>/NNN_mask.png`; `good` has no masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from ancd_ray.config.job import MvtecProduct
from ancd_ray.data.layouts.tree import TWINS, Listed, Tree, stem, twins


def images(product: MvtecProduct, tree: Tree) -> Iterator[Listed]:
    """`train/good` are normal, the folders of `test` are labels."""
    for path in tree.images("train/good"):
        yield Listed(tree.path_of(path), tree.uri_of(path), "normal", "good", stamp=tree.stamp(path))
    tests = tree.images("test")
    ambiguous = twins(tests)
    masks = {stem(path): path for path in tree.images("ground_truth")}
    for path in tests:
        parts = PurePosixPath(path).parts
        if len(parts) != 3:  # test/<class>/<file>
            continue
        name = stem(path).removeprefix("test/")
        mask = masks.get(f"ground_truth/{name}_mask") or masks.get(f"ground_truth/{name}")
        problem = TWINS if path in ambiguous and mask else None
        yield Listed(
            tree.path_of(path),
            tree.uri_of(path),
            "novel",
            parts[1],
            mask_uri=tree.uri_of(mask) if mask else None,
            stamp=tree.stamp(path, mask),
            problem=problem,
        )
