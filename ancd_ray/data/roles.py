"""Roles, labels and classes of images; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GOOD = "good"  # the label of images without a defect
NORMAL = "normal"  # the name of the class of images without a defect

# query: to be classified; normal: training image of detectors; base: image of the labelled base set D^l
Role = Literal["query", "normal", "base"]


def is_defect(label: str | None) -> bool:
    """Whether a label is that of a defect."""
    return label is not None and label != GOOD


@dataclass(frozen=True)
class ListedImage:
    """An image that a layout names, before its file is opened.

    `path` is relative to the archive's root; the image's id is made from it.
    """

    path: str
    uri: str
    role: Role
    label: str | None = None
    mask_uris: tuple[str, ...] = ()
    mask_shapes: str | None = None  # annotation, see `data/shapes.py`
    captured_at: str | None = None
    stamp: str = ""  # sizes and times of its files, by which changed files are found
    problem: str | None = None
    map_uri: str | None = None  # precomputed anomaly map

    @property
    def has_mask(self) -> bool:
        """Whether a mask is known."""
        return bool(self.mask_uris or self.mask_shapes)

    @property
    def is_defect(self) -> bool:
        """Whether it is labeled as a defect."""
        return self.role == "query" and is_defect(self.label)


@dataclass(frozen=True)
class Classes:
    """Classes of a discovery: names of the known ones, number of novel ones, and whether the first novel is normal."""

    base_classes: tuple[str, ...]
    n_novel: int
    has_normal: bool

    @property
    def n_base(self) -> int:
        """Number of known classes; they come before the novel ones."""
        return len(self.base_classes)


def describe_number(low: int, high: int) -> str:
    """Describe a number of classes, or the range in which it lies."""
    return str(low) if low == high else f"between {low} and {high}"


def name_classes(n_novel: int, has_normal: bool) -> list[str]:
    """Return the names of the novel classes; the first one is `normal` if there is a normal class."""
    names = [f"class {i}" for i in range(n_novel)]
    return [NORMAL, *names[1:]] if has_normal else names


def make_class_id(product: str, number: int) -> str:
    """Make the id of a class that is no normal one."""
    return f"{product}-c{number:04d}"


def make_normal_id(product: str) -> str:
    """Make the id of the normal class of a product, which is the same in all discoveries."""
    return f"{product}-{NORMAL}"


def make_class_ids(product: str, n_novel: int, has_normal: bool) -> list[str]:
    """Make the ids of the classes of a first discovery, by index."""
    ids = [make_class_id(product, number) for number in range(n_novel)]
    return [make_normal_id(product), *ids[1:]] if has_normal else ids
