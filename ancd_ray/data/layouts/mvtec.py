"""MVTec AD: `train/good`, `test/<class>/NNN.png`, `ground_truth/<class>/NNN_mask.png`, and archives in its form.

The normal class may have another name, folders below those of the classes may be nested by date, and masks may have
other endings: `NNN_gt.png`, `NNN_label.png`, or several files in a folder `NNN/`, as in MVTec LOCO. BTAD is this layout
with the names `ok` and `ko`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from ancd_ray.data.layouts.base import NORMAL_LABELS, ProductConfig
from ancd_ray.data.layouts.masks import Named, find_masks
from ancd_ray.data.layouts.tree import TWINS, Tree
from ancd_ray.data.roles import ListedImage

_PATTERNS = ("{stem}_mask.*", "{stem}.*", "{stem}/*", "{stem}[_-]*.*")
MASKS = "ground_truth"


class MvtecProduct(ProductConfig):
    """`train/good`, `test/<class>`, `ground_truth/<class>/<stem>_mask.png`."""

    layout: Literal["mvtec", "btad"]
    masks: str | tuple[str, ...] | None = None  # patterns below ground_truth, such as `{class}/{stem}*.png`


def recognize(tree: Tree) -> dict[str, Any] | None:
    """Return the keys of a product whose folder has images in `test/<class>`; None for any other."""
    classes = _list_folders(tree, "test")
    if not classes:
        return None
    keys: dict[str, Any] = {"layout": "btad" if "ko" in classes else "mvtec"}
    normals = _list_folders(tree, "train")
    if len(normals) == 1 and not {name.casefold() for name in normals} & set(NORMAL_LABELS):
        keys["normal_labels"] = [*normals]  # training images are normal, whatever their folder's name
    return keys


def _list_folders(tree: Tree, below: str) -> set[str]:
    parts = [path.split("/") for path in tree.images(below)]
    return {part[1] for part in parts if len(part) > 2}


def list_images(product: MvtecProduct, tree: Tree) -> Iterator[ListedImage]:
    """List `train/<normal>` as normal images; the folders of `test` are labels."""
    for path in tree.images("train"):
        parts = path.split("/")
        if len(parts) > 2 and product.is_normal(parts[1]):
            yield tree.make(path, "normal", product.name_label(parts[1]))
    named = {}
    for path in tree.images("test"):
        parts = path.split("/")
        if len(parts) > 2:  # test/<class>/[<folders>/]<file>
            folder = "".join(f"{part}/" for part in parts[2:-1])
            named[path] = Named(parts[1], folder, parts[-1].rpartition(".")[0])
    found = find_masks(named, tree.images(MASKS), _make_patterns(product.masks))
    for path, name in named.items():
        problem = TWINS if path in found.ambiguous else None
        yield tree.make(path, "query", product.name_label(name.label), found.masks.get(path, ()), problem=problem)


def _make_patterns(declared: str | Sequence[str] | None) -> list[str]:
    if declared is None:
        nested = [f"{MASKS}/{{class}}/{{dir}}{pattern}" for pattern in _PATTERNS]
        return [*nested, *(f"{MASKS}/{{class}}/{pattern}" for pattern in _PATTERNS)]
    given = [declared] if isinstance(declared, str) else declared
    return [form for pattern in given for form in (pattern, f"{MASKS}/{pattern}")]
