"""Reads a manifest, a CSV or Parquet table with one image per row, as spreadsheets, scripts and Windows write it.

A table is either read as it is meant or refused: nothing is guessed that could give an image another label or mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ancd_ray.config.errors import first_line
from ancd_ray.data.images import is_image
from ancd_ray.data.layouts.csv_records import CsvRecords
from ancd_ray.data.layouts.table_paths import PathPrefix, normalize_path
from ancd_ray.data.layouts.text import FALLBACK, clip, decode_text
from ancd_ray.data.roles import GOOD

# names of columns, in any case; blanks and hyphens in them count as underscores
_NAMES = {
    "uri": "uri image file path filename file_name filepath file_path image_path image_file image_uri img img_path",
    "label": "label class category defect defect_type type class_name",
    "mask": "mask mask_path mask_file mask_uri ground_truth gt",
    "role": "role split",
    "captured_at": "captured_at timestamp datetime date time",
}
_FIELDS = {name: field for field, names in _NAMES.items() for name in names.split()}
_MISSING = frozenset({"", "nan", "null"})  # what scripts write where there is no value
_MISSING_MASK = _MISSING | {"none", "n/a", "na", "-"}  # "none" may be the name of a class, but of no file
_NORMALS = frozenset({GOOD, "normal", "ok"})
_ROLES = {"normal": "normal", "train-good": "normal", "train/good": "normal"} | dict.fromkeys(
    ("query", "novel", "test", "val", "valid", "validation"), "query"
)


class ManifestError(ValueError):
    """A manifest that cannot be read; the message is one line with row, column and remedy."""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """An image of a manifest; `row` is its line in a text editor, of Parquet the number of the row, both from 1.

    `role` is `query`, `normal`, None, or the text of the table if it is neither of them.
    """

    uri: str
    label: str | None
    mask: str | None
    role: str | None
    captured_at: str | None
    row: int


@dataclass(frozen=True)
class Manifest:
    """The images of a manifest, and notes of one line each on what was left out of it."""

    rows: list[ManifestRow]
    notes: list[str]


def read_manifest(data: bytes, name: str, path_prefix: PathPrefix | None = None) -> Manifest:
    """Read a manifest from the bytes of a CSV or Parquet file.

    Parameters
    ----------
    data : bytes
        The content of the file.
    name : str
        The file's name, for messages; Parquet is recognized by content or by the suffix `.parquet`.
    path_prefix : PathPrefix or None
        What the paths of another machine begin with, and what takes its place.

    Raises
    ------
    ManifestError
        The table cannot be read, or not without a guess.
    """
    try:
        if data.startswith(b"PAR1") or name.lower().endswith(".parquet"):
            return _read_parquet(data, path_prefix)
        return _read_csv(data, path_prefix)
    except ValueError as error:
        raise ManifestError(f"{name}: {error}") from None


def has_manifest_header(data: bytes, name: str) -> bool:
    """Whether a CSV or Parquet file has the columns of a manifest."""
    try:
        if data.startswith(b"PAR1") or name.lower().endswith(".parquet"):
            header = list(pq.ParquetFile(pa.BufferReader(data)).schema_arrow.names)
        else:
            _, header = next(iter(CsvRecords(decode_text(data)[0], _count_names)), (0, []))
        return bool(_find_columns(header, ""))
    except (ValueError, pa.ArrowException, OSError):
        return False


def _read_csv(data: bytes, prefix: PathPrefix | None) -> Manifest:
    if data.startswith(b"PK\x03\x04"):
        raise ValueError("is an Excel workbook or a ZIP file; save the table as CSV")
    text, encoding = decode_text(data)
    records = CsvRecords(text, _count_names)
    lines = iter(records)
    row, header = next(lines, (0, []))
    if not header:
        raise ValueError("is empty; its first row names the columns, such as uri,label,mask")
    columns = _find_columns(header, f"row {row}: ")
    path_column, width = columns["uri"][0], len(header)
    records.is_row = lambda cells: len(cells) == width and is_image(cells[path_column])
    short: list[int] = []
    rows = list(_make_rows(_fit(lines, width, records.separator, short), header, columns, prefix))
    notes = _note_ignored(header, columns)
    if encoding == FALLBACK:
        notes.append("is not UTF-8: read as Windows-1252")
    if records.comments:
        notes.append(f"comment lines left out: {_list_rows(records.comments)}")
    if short:
        notes.append(f"rows with fewer fields than the header, read as without the last ones: {_list_rows(short)}")
    return Manifest(rows, notes)


def _read_parquet(data: bytes, prefix: PathPrefix | None) -> Manifest:
    with _rejecting("is not a readable Parquet file"):
        file = pq.ParquetFile(pa.BufferReader(data))
        header = list(file.schema_arrow.names)
    columns = _find_columns(header, "")
    read = sorted(index for indices in columns.values() for index in indices)
    with _rejecting("is not a readable Parquet file"):
        table = file.read(columns=[header[index] for index in read])
        table.validate(full=True)
    names = [header[index] for index in read]
    texts = [_to_texts(table.column(name), name) for name in names]
    records = enumerate(([cell.strip() for cell in cells] for cells in zip(*texts, strict=True)), 1)
    rows = list(_make_rows(records, names, _find_columns(names, ""), prefix))
    return Manifest(rows, _note_ignored(header, columns))


def _to_texts(column: Any, name: str) -> list[str]:
    with _rejecting(f"column {name!r} has {column.type}, which is no text"):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return list(column.cast(pa.string()).fill_null("").to_pylist())


@contextmanager
def _rejecting(what: str) -> Iterator[None]:
    """Turn whatever Arrow raises into one line: the files are foreign, and their readers have many errors."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{clip(what)}: {clip(first_line(error))}") from None


def _count_names(header: Sequence[str]) -> int:
    """Count the cells that are names of columns; a header without the images' column counts nothing."""
    fields = [_FIELDS.get(_simplify(cell)) for cell in header]
    return len(fields) - fields.count(None) if "uri" in fields else 0


def _simplify(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _find_columns(header: Sequence[str], where: str) -> dict[str, list[int]]:
    """Find the columns of each field by their names; a date and a time are together one field."""
    columns: dict[str, list[int]] = {}
    for index, cell in enumerate(header):
        if field := _FIELDS.get(_simplify(cell)):
            columns.setdefault(field, []).append(index)
    if "uri" not in columns:
        if any(is_image(cell) for cell in header):
            raise ValueError(f"{where}names no columns; add a row before it, such as uri,label,mask")
        found = clip(", ".join(repr(cell) for cell in header))
        raise ValueError(
            f"{where}no column 'uri' with the paths of the images; rename the one of {found} that has them"
        )
    for field, indices in columns.items():
        indices.sort(key=lambda index: _simplify(header[index]))  # the date before the time
        if len(indices) > 1 and [_simplify(header[index]) for index in indices] != ["date", "time"]:
            both = " and ".join(f"{clip(header[index])!r} (number {index + 1})" for index in sorted(indices)[:2])
            raise ValueError(f"{where}columns {both} are both read as {field!r}; rename or remove one of them")
    return columns


def _fit(
    records: Iterable[tuple[int, list[str]]], width: int, separator: str, short: list[int]
) -> Iterator[tuple[int, list[str]]]:
    """Give each record as many cells as the header has; the rows that have fewer are added to `short`."""
    for row, cells in records:
        if len(cells) > width and any(cells[width:]):
            fields = f"has {len(cells)} fields, and the header {width}"
            raise ValueError(f"row {row}: {fields}; put quotes around a value with {separator!r}")
        if len(cells) < width:
            short.append(row)
            cells = cells + [""] * (width - len(cells))  # noqa: PLW2901
        yield row, cells


def _make_rows(
    records: Iterable[tuple[int, list[str]]],
    header: Sequence[str],
    columns: dict[str, list[int]],
    prefix: PathPrefix | None,
) -> Iterator[ManifestRow]:
    uri_at, label_at, mask_at, role_at = (columns.get(field, [None])[0] for field in ("uri", "label", "mask", "role"))
    times = columns.get("captured_at", [])
    assert uri_at is not None
    for row, cells in records:
        if not cells[uri_at]:
            if any(cells):
                raise ValueError(f"row {row}, column {header[uri_at]!r}: has no path; add it, or remove the row")
            continue
        label = None if label_at is None or cells[label_at].lower() in _MISSING else cells[label_at]
        mask = None if mask_at is None or cells[mask_at].lower() in _MISSING_MASK else cells[mask_at]
        role = None if role_at is None or cells[role_at].lower() in _MISSING else cells[role_at]
        captured_at = " ".join(cells[index] for index in times if cells[index].lower() not in _MISSING)
        try:
            at = uri_at
            uri = normalize_path(cells[uri_at], prefix)
            if mask is not None and mask_at is not None:
                at = mask_at
                mask = normalize_path(mask, prefix)
        except ValueError as error:
            raise ValueError(f"row {row}, column {header[at]!r}: {error}") from None
        yield ManifestRow(uri, label, mask, role and _read_role(role, label), captured_at or None, row)


def _read_role(role: str, label: str | None) -> str:
    """Translate the role of a row; training images are normal if they are labelled so, and to be classified if not."""
    name = _simplify(role).replace("_", "-")
    if name in ("train", "training") and label is not None:
        return "normal" if label.lower() in _NORMALS else "query"
    return _ROLES.get(name, role)


def _note_ignored(header: Sequence[str], columns: dict[str, list[int]]) -> list[str]:
    used = {index for indices in columns.values() for index in indices}
    ignored = [cell for index, cell in enumerate(header) if index not in used and cell]
    return [f"columns ignored: {clip(', '.join(ignored))}"] if ignored else []


def _list_rows(rows: Sequence[int]) -> str:
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"{', '.join(map(str, rows[:5]))}{more}"
