"""A CSV or Parquet file that lists images: `uri`, and optionally `label`, `mask`, `role`, `captured_at`.

Paths are relative to the archive's root, or lead into it. An entry that leads elsewhere is set aside, not read: a
list that comes with an archive must not make a job open other files of the machine.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ancd_ray.data.images import BadImage, read_bytes
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.tree import Tree
from ancd_ray.data.roles import ListedImage, Role
from ancd_ray.data.store import filesystem

_COLUMNS = ("uri", "label", "mask", "role", "captured_at")
_ROLES: dict[str | None, Role] = {None: "query", "query": "query", "novel": "query", "normal": "normal"}


class ManifestProduct(ProductConfig):
    """A CSV or Parquet file with a column `uri`, and optionally `label`, `mask`, `role` and `captured_at`."""

    layout: Literal["manifest"]


def list_images(product: ManifestProduct, tree: Tree) -> Iterator[ListedImage]:
    """List one image a row of the list; of rows with the same uri the first counts, the others are set aside."""
    inside = Tree(tree.root, ".")
    entries = [_entry(row, inside) for row in _read(product, tree.uri)]
    inside.look_at([path for entry in entries for path in (entry.path, entry.mask) if path])
    seen: Counter[str] = Counter()
    for entry in entries:
        row, path, problem = entry.row, entry.path, entry.problem
        uri = inside.uri_of(path) if path else row["uri"]
        name = path or row["uri"]
        assert uri
        assert name
        seen[name] += 1
        if seen[name] > 1:
            problem, name = "listed more than once", f"{name}#{seen[name]}"
        yield ListedImage(
            name,
            uri,
            _ROLES.get(row["role"], "query"),
            row["label"],
            mask_uri=inside.uri_of(entry.mask) if entry.mask else None,
            captured_at=row["captured_at"],
            stamp=inside.stamp(path, entry.mask),
            problem=problem,
        )


class _Entry(NamedTuple):
    """A row of the list, its paths below the archive's root (None where they lead out), and what is wrong with it."""

    row: dict[str, str | None]
    path: str | None
    mask: str | None
    problem: str | None


def _entry(row: dict[str, str | None], inside: Tree) -> _Entry:
    path, mask = _relative(row["uri"], inside), _relative(row["mask"], inside)
    problem = None
    if path is None or (row["mask"] and mask is None):
        problem = f"{'its mask' if path else 'it'} leads out of data.root"
    elif row["role"] and row["role"] not in _ROLES:
        problem = f"its role {row['role']!r} is none of query, normal"
    return _Entry(row, path, mask, problem)


def _read(product: ManifestProduct, uri: str) -> list[dict[str, str | None]]:
    try:
        data = read_bytes(uri)
        table = _table(data, PurePosixPath(uri).suffix.lower())
    except (BadImage, pa.ArrowInvalid) as error:
        raise LayoutError(f"product {product.name}: {uri}: {str(error).splitlines()[0]}") from error
    if "uri" not in table.column_names:
        raise LayoutError(f"product {product.name}: {uri} has no column 'uri'; it has {', '.join(table.column_names)}")
    columns: dict[str, list[Any]] = {
        name: [_text(value) for value in table.column(name).to_pylist()]
        if name in table.column_names
        else [None] * len(table)
        for name in _COLUMNS
    }
    return [{name: columns[name][i] for name in _COLUMNS} for i in range(len(table)) if columns["uri"][i]]


def _table(data: bytes, suffix: str) -> pa.Table:
    if suffix == ".parquet":
        return pq.read_table(pa.BufferReader(data))
    as_text = pacsv.ConvertOptions(column_types={name: pa.string() for name in _COLUMNS})  # a label "007" stays one
    return pacsv.read_csv(io.BytesIO(data), convert_options=as_text)


def _text(value: object) -> str | None:
    return None if value is None or str(value) == "" else str(value)


def _relative(uri: str | None, inside: Tree) -> str | None:
    """The path below the archive's root; None if there is none."""
    if not uri:
        return None
    _, root = filesystem(inside.root)
    path = uri
    if "://" in uri and uri.startswith(inside.root + "/"):
        path = uri.removeprefix(inside.root + "/")
    elif Path(uri).is_absolute() and Path(uri).is_relative_to(root):
        path = str(Path(uri).relative_to(root))
    outside = "://" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts
    return None if outside or not inside.holds(path) else path
