"""A CSV or Parquet file that lists images: `uri`, and optionally `label`, `mask`, `role`, `captured_at`.

Paths are relative to the archive's root, or absolute and below it. Entries outside of the root are quarantined without
being read: a list that comes with an archive must not make a job open other files of the machine.
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
    """List one image per row; of rows with the same uri, all but the first are quarantined."""
    inside = Tree(tree.root, ".")
    entries = [_make_entry(row, inside) for row in _read_rows(product, tree.uri)]
    inside.restrict_to([path for entry in entries for path in (entry.path, entry.mask) if path])
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
    """A row of the list, its paths relative to the archive's root (None if outside of it), and its problem, if any."""

    row: dict[str, str | None]
    path: str | None
    mask: str | None
    problem: str | None


def _make_entry(row: dict[str, str | None], inside: Tree) -> _Entry:
    path, mask = _make_relative(row["uri"], inside), _make_relative(row["mask"], inside)
    problem = None
    if path is None or (row["mask"] and mask is None):
        problem = f"{'its mask' if path else 'it'} leads out of data.root"
    elif row["role"] and row["role"] not in _ROLES:
        problem = f"its role {row['role']!r} is none of query, normal"
    return _Entry(row, path, mask, problem)


def _read_rows(product: ManifestProduct, uri: str) -> list[dict[str, str | None]]:
    try:
        data = read_bytes(uri)
        table = _parse_table(data, PurePosixPath(uri).suffix.lower())
    except (BadImage, pa.ArrowInvalid) as error:
        raise LayoutError(f"product {product.name}: {uri}: {str(error).splitlines()[0]}") from error
    if "uri" not in table.column_names:
        raise LayoutError(f"product {product.name}: {uri} has no column 'uri'; it has {', '.join(table.column_names)}")
    columns: dict[str, list[Any]] = {
        name: [_to_text(value) for value in table.column(name).to_pylist()]
        if name in table.column_names
        else [None] * len(table)
        for name in _COLUMNS
    }
    return [{name: columns[name][i] for name in _COLUMNS} for i in range(len(table)) if columns["uri"][i]]


def _parse_table(data: bytes, suffix: str) -> pa.Table:
    if suffix == ".parquet":
        return pq.read_table(pa.BufferReader(data))
    as_text = pacsv.ConvertOptions(column_types={name: pa.string() for name in _COLUMNS})  # keeps labels such as "007"
    return pacsv.read_csv(io.BytesIO(data), convert_options=as_text)


def _to_text(value: object) -> str | None:
    return None if value is None or str(value) == "" else str(value)


def _make_relative(uri: str | None, inside: Tree) -> str | None:
    """Return the path relative to the archive's root; None without a URI or if it leads out of the root."""
    if not uri:
        return None
    _, root = filesystem(inside.root)
    path = uri
    if "://" in uri and uri.startswith(inside.root + "/"):
        path = uri.removeprefix(inside.root + "/")
    elif Path(uri).is_absolute() and Path(uri).is_relative_to(root):
        path = str(Path(uri).relative_to(root))
    outside = "://" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts
    return None if outside or not inside.contains(path) else path
