"""Accounts for the files of a product, one by one, as `plan` says it."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.data.images import is_image
from ancd_ray.data.layouts.tree import Tree
from ancd_ray.data.listed import ListedImages
from ancd_ray.data.roles import GOOD


@dataclass(frozen=True)
class Account:
    """What a listing found: files, images by role and label, masks, what was not taken and why, and notes."""

    files: int
    normals: int
    labels: Mapping[str | None, int]
    masks: int
    without_mask: int  # images that are labeled as defects, where others have masks
    problems: Mapping[str, int]  # images that go to quarantine, by reason
    not_taken: Mapping[str, int]
    notes: tuple[str, ...]

    def describe(self, purpose: str = "to classify") -> list[str]:
        """Describe in lines what will happen with the files; `purpose` is that of images that are not normal ones."""
        queries = sum(self.labels.values())
        known = {label: n for label, n in self.labels.items() if label is not None}
        labels = ", ".join(f"{label} {n}" for label, n in sorted(known.items())) or "none"
        if known and None in self.labels:
            labels += f", without a label {self.labels[None]}"
        line = f"{self.files:,} files: {self.normals + queries:,} taken"
        parts = [f"{self.normals:,} normal"] if self.normals else []
        line += f" ({', '.join([*parts, f'{queries:,} {purpose}'])})"
        if self.masks:
            line += f", {self.masks:,} masks"
        missing = sum(self.not_taken.values())
        if missing:
            line += f", {missing:,} not ({', '.join(f'{n:,} {reason}' for reason, n in self.not_taken.items())})"
        lines = [f"{line}; labels: {labels}"]
        if self.without_mask:
            lines.append(
                f"{self.without_mask:,} images labeled as defects have no mask: they are quarantined where masks are "
                "needed, and count as unlabeled in the evaluation of maps; `masks:` of the product names patterns"
            )
        lines += [f"{n:,} to quarantine: {reason}" for reason, n in self.problems.items()]
        return [*lines, *self.notes]


def make_account(tree: Tree, images: ListedImages, excluded: int) -> Account:
    """Account for the files of a tree, whose images are listed."""
    is_query = pc.equal(images.column("role"), "query")
    labels, masks = images.column("label"), images.column("mask_uris")
    has_mask = pc.or_(masks.is_valid(), images.column("mask_shapes").is_valid())
    is_defect = pc.and_(is_query, pc.fill_null(pc.not_equal(labels, GOOD), fill_value=False))
    without = pc.sum(pc.and_not(is_defect, has_mask)).as_py() or 0
    n_masks = pc.count_distinct(pc.list_flatten(masks)).as_py() + pc.count(images.column("mask_shapes")).as_py()
    walked = "walk" in tree.__dict__  # a manifest does not list its folder
    files = len(tree.files) + sum(map(len, tree.walk.left_out.values())) if walked else len(images)
    return Account(
        files,
        pc.sum(pc.equal(images.column("role"), "normal")).as_py() or 0,
        _count_values(labels.filter(is_query)),
        n_masks,
        without if n_masks else 0,
        _count_values(images.column("problem").drop_null()),
        (_count_rest(tree) if walked else {}) | ({"of excluded classes": excluded} if excluded else {}),
        tuple(tree.notes),
    )


def _count_values(column: pa.ChunkedArray) -> Counter[Any]:
    return Counter({each["values"]: each["counts"] for each in pc.value_counts(column).to_pylist()})


def _count_rest(tree: Tree) -> dict[str, int]:
    """Count the files that are no images of the layout, by reason."""
    reasons: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    for path in tree.files.unmarked():
        if is_image(path):
            reasons[f"not where the layout has images: {path.partition('/')[0]}/"] += 1
        else:
            suffixes[posixpath.splitext(path)[1].lower() or "without a suffix"] += 1
    if suffixes:
        reasons[f"of unknown type: {', '.join(sorted(suffixes))}"] = sum(suffixes.values())
    for reason, paths in tree.walk.left_out.items():
        reasons[reason] = len(paths)
    return dict(reasons)
