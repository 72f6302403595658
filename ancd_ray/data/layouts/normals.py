"""Subfolders of normal images, of layouts that have one."""

from __future__ import annotations

from typing import Any

from ancd_ray.data.layouts.base import NORMAL_LABELS
from ancd_ray.data.layouts.tree import Tree

_NAMES = frozenset({"normals", "train", *NORMAL_LABELS})


def find_normals(tree: Tree) -> dict[str, Any]:
    """Return the key `normals` of a folder whose name says that its images are normal; empty without exactly one."""
    found = [name for name in tree.folders() if name.casefold() in _NAMES]
    return {"normals": found[0]} if len(found) == 1 else {}


def is_below(path: str, folder: str | None) -> bool:
    """Whether a path is in a folder, if there is one."""
    return folder is not None and path.startswith(f"{folder.strip('/')}/")
