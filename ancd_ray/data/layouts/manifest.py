"""A CSV or Parquet file that lists images: `uri`, and optionally `label`, `mask`, `role`, `captured_at`.

Paths are relative to the archive's root, or absolute and below it. Entries outside of the root are quarantined without
being read: a list that comes with an archive must not make a job open other files of the machine.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from ancd_ray.data.images import BadImage, read_bytes
from ancd_ray.data.layouts.base import LayoutError, ProductConfig
from ancd_ray.data.layouts.manifest_table import ManifestError, ManifestRow, has_manifest_header, read_manifest
from ancd_ray.data.layouts.table_paths import PathPrefix
from ancd_ray.data.layouts.tree import Tree
from ancd_ray.data.location import Location, StoreError
from ancd_ray.data.roles import ListedImage, Role

_ROLES: dict[str | None, Role] = {None: "query", "query": "query", "normal": "normal"}


class ManifestProduct(ProductConfig):
    """A CSV or Parquet file with a column `uri`, and optionally `label`, `mask`, `role` and `captured_at`."""

    layout: Literal["manifest"]
    path_prefix: PathPrefix | None = None  # what paths of another machine begin with, and what takes its place


def recognize(tree: Tree) -> dict[str, Any] | None:
    """Return the keys of a product with a table whose header is that of a manifest; None for any other.

    Its paths are relative to the archive's root, so it has to be there.
    """
    for path in tree.find(".csv", ".tsv", ".parquet"):
        if not tree.prefix and "/" not in path and has_manifest_header(tree.read(path), path):
            return {"layout": "manifest", "path": path}
    return None


def list_images(product: ManifestProduct, tree: Tree) -> Iterator[ListedImage]:
    """List one image per row; of rows with the same file, all but the first are quarantined."""
    inside = Tree(str(tree.root), ".")
    try:
        manifest = read_manifest(read_bytes(tree.uri), tree.uri, product.path_prefix)
    except (BadImage, ManifestError) as error:
        text = str(error) if tree.uri in str(error) else f"{tree.uri}: {error}"
        raise LayoutError(f"product {product.name}: {text.splitlines()[0]}") from error
    tree.notes += manifest.notes
    entries = [_make_entry(row, inside) for row in manifest.rows]
    inside.restrict_to([path for entry in entries for path in (entry.path, entry.mask) if path])
    seen: Counter[str] = Counter()
    for entry in entries:
        row, problem = entry.row, entry.problem
        name = entry.path or row.uri
        seen[name] += 1
        if seen[name] > 1:
            problem, name = "listed more than once", f"{name}#{seen[name]}"
        role, label = _ROLES.get(row.role, "query"), product.name_label(row.label)
        if entry.path is None:
            yield ListedImage(name, row.uri, role, label, captured_at=row.captured_at, problem=problem)
            continue
        masks = (entry.mask,) if entry.mask else ()
        yield inside.make(entry.path, role, label, masks, captured_at=row.captured_at, problem=problem, path=name)


class _Entry(NamedTuple):
    """A row of the list, its paths relative to the archive's root (None if outside of it), and its problem, if any."""

    row: ManifestRow
    path: str | None
    mask: str | None
    problem: str | None


def _make_entry(row: ManifestRow, inside: Tree) -> _Entry:
    path, mask = _make_relative(row.uri, inside), _make_relative(row.mask, inside)
    problem = None
    if path is None or (row.mask and mask is None):
        problem = f"{'its mask' if path else 'it'} leads out of data.root"
    elif row.role not in _ROLES:
        problem = f"its role {row.role!r} is none of query, normal"
    return _Entry(row, path, mask, problem)


def _make_relative(uri: str | None, inside: Tree) -> str | None:
    """Return the normalized path relative to the archive's root; None without a URI or if it leads out of the root."""
    if not uri:
        return None
    root = inside.location
    path = uri
    if "://" in uri or uri.startswith("/"):
        try:
            place = Location.parse(uri)
        except StoreError:
            return None
        if (place.scheme, place.host) != (root.scheme, root.host):
            return None
        start = f"{root.path.rstrip('/')}/" if root.path else ""
        if not place.path.startswith(start):
            return None
        path = place.path.removeprefix(start)
    path = posixpath.normpath(path)
    outside = path == ".." or path.startswith("../") or PurePosixPath(path).is_absolute()
    return None if outside or not inside.contains(path) else path
