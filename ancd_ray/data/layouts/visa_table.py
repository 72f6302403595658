"""Parses the tables of VisA: `image_anno.csv` of an object, and the splits such as `split_csv/1cls.csv`."""

from __future__ import annotations

from dataclasses import replace

from ancd_ray.data.layouts.manifest_table import Manifest, read_manifest
from ancd_ray.data.roles import GOOD

NORMAL = "normal"


def parse_visa(data: bytes, name: str) -> Manifest:
    """Parse a table of VisA: a manifest whose labels may be several, separated by commas.

    `normal` becomes `good`. Several labels become one, in alphabetic order and joined by `+`. A column `split` gives
    normal images of `train` the role of normal images. Paths begin with the name of the object.

    Raises
    ------
    ManifestError
        The table cannot be read.
    """
    table = read_manifest(data, name)
    return replace(table, rows=[replace(row, label=_join_labels(row.label)) for row in table.rows])


def _join_labels(text: str | None) -> str | None:
    labels = {label.strip() for label in (text or "").split(",")} - {""}
    return "+".join(sorted(GOOD if label.lower() == NORMAL else label for label in labels)) or None
