"""Reads precomputed anomaly maps: .npy, .npz, grayscale PNG and TIFF, and rows of Parquet files.

A Parquet file of maps has a row for each: `path`, that of the image, and `map`, bytes. The bytes are a file of one of
the other formats; or plain values, row by row in little-endian order, if there are the columns `dtype`, `height` and
`width`. A row is addressed as `<file>#row=<number>`.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ancd_ray.config.errors import first_line
from ancd_ray.data.images import MAX_BYTES, MAX_PIXELS, BadImage, load_values, read_bytes, rejecting, to_native
from ancd_ray.data.location import Location, StoreError, describe_outage

TABLE = ".parquet"
SUFFIXES = frozenset({".npy", ".npz", ".png", ".tif", ".tiff"})
_NAMES = ("anomaly_map", "map")  # of the array, in an .npz with several
_ROW = re.compile(r"(.*)#row=(\d+)", re.DOTALL)
_VALUES = ("dtype", "height", "width")
_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")


def read_map_file(uri: str) -> NDArray[Any]:
    """Read a map (H, W) of a file, or of a row of a Parquet file.

    Raises
    ------
    BadImage
        It does not exist, or is no map; see `decode_map`.
    StoreError
        The store or the mount does not answer.
    """
    table, row = split_row(uri)
    return decode_map(read_bytes(uri)) if row is None else _decode_row(_read_row(table, row))


def make_row_uri(table: str, row: int) -> str:
    """Return the address of a row of a Parquet file."""
    return f"{table}#row={row}"


def split_row(address: str) -> tuple[str, int | None]:
    """Split an address into the file, and the number of the row if it is a Parquet file."""
    found = _ROW.fullmatch(address)
    return (found[1], int(found[2])) if found else (address, None)


def read_paths(uri: str) -> list[str]:
    """Read the column `path` of a Parquet file of maps.

    Raises
    ------
    BadImage
        It cannot be read, or has not the columns of maps.
    """
    file = _open_table(uri)
    names = file.schema_arrow.names
    if missing := [name for name in ("path", "map") if name not in names]:
        raise BadImage(f"has no column {missing[0]!r}; a Parquet file of maps has `path` and `map`")
    with rejecting("not a readable Parquet file"):
        column = file.read(["path"]).column("path")
        return [str(path) for path in column.cast(pa.string()).fill_null("").to_pylist()]


def decode_map(data: bytes) -> NDArray[Any]:
    """Decode a stored anomaly map (H, W) without scaling: .npy or .npz (float or integer), or grayscale PNG or TIFF.

    Raises
    ------
    BadImage
        The file has none of these formats, is not two-dimensional, or has values that are not finite.
    """
    if data.startswith(b"\x93NUMPY"):
        values = _decode_npy(data)
    elif data.startswith(b"PK\x03\x04"):
        values = _decode_npz(data)
    else:
        values = load_values(data, np.asarray)  # the numbers as they are stored, of a palette its indices
    return _check(values)


def _check(values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiub":
        hint = "; save its values, not a picture of it in colors" if values.ndim == 3 else ""
        found = f"{values.dtype} of shape {values.shape}"
        raise BadImage(f"an anomaly map must have one number per pixel, but is {found}{hint}")
    if not np.isfinite(values).all():
        raise BadImage("the anomaly map has values that are not finite")
    return values


def _decode_npy(data: bytes) -> NDArray[Any]:
    with rejecting("not a readable .npy file"):
        _check_npy(data)
        values = to_native(np.load(io.BytesIO(data), allow_pickle=False))
        while values.ndim > 2 and 1 in values.shape:  # (1, H, W), (H, W, 1); a map of one row keeps it
            values = values.squeeze(values.shape.index(1))
        return values


def _decode_npz(data: bytes) -> NDArray[Any]:
    """Decode the only array of an .npz, or the one that is named as a map."""
    with rejecting("not a readable .npz file"), zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        chosen = [name for name in _NAMES if name in names] or [*names]
        if len(chosen) > 1 and chosen[0] not in _NAMES:
            raise BadImage(f"has several arrays ({', '.join(names)}) and none is named anomaly_map")
        if not chosen or names[chosen[0]].file_size > MAX_BYTES:
            raise BadImage(f"has no array of at most {MAX_BYTES:,} bytes")
        return _decode_npy(archive.read(names[chosen[0]]))


def _check_npy(data: bytes) -> None:
    """Check type, shape and length before memory is allocated."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "fiub":
        raise ValueError(f"its values are {dtype}")
    needed, left = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if math.prod(shape) > MAX_PIXELS or needed > left:
        raise ValueError(f"its shape {shape} needs {needed:,} bytes, and {left:,} are there")


def _decode_row(row: dict[str, Any]) -> NDArray[Any]:
    if not isinstance(row["map"], bytes):
        raise BadImage("the column `map` must have bytes")
    if any(row.get(name) is None for name in _VALUES):
        return decode_map(row["map"])
    if row["dtype"] not in _DTYPES:
        raise BadImage(f"dtype {row['dtype']!r} is none of {', '.join(_DTYPES)}")
    dtype, height, width = np.dtype(row["dtype"]).newbyteorder("<"), int(row["height"]), int(row["width"])
    if height < 1 or width < 1 or height * width * dtype.itemsize != len(row["map"]):
        raise BadImage(f"{height} x {width} of {row['dtype']} are not {len(row['map']):,} bytes")
    return _check(to_native(np.frombuffer(row["map"], dtype).reshape(height, width)))


def _read_row(uri: str, number: int) -> dict[str, Any]:
    file = _open_table(uri)
    start = 0
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        if number < start + about.num_rows:
            if about.total_byte_size > MAX_BYTES:
                raise BadImage(f"has row groups of {about.total_byte_size:,} bytes; write it with row_group_size=16")
            columns = tuple(name for name in ("map", *_VALUES) if name in file.schema_arrow.names)
            with rejecting("not a readable Parquet file"):
                table = _read_group(uri, _stamp(uri), group, columns)
                return dict(table.slice(number - start, 1).to_pylist()[0])
        start += about.num_rows
    raise BadImage(f"has {start:,} rows, of which none is number {number}")


@lru_cache(maxsize=1)
def _read_group(uri: str, stamp: str, group: int, columns: tuple[str, ...]) -> pa.Table:  # noqa: ARG001
    """Read a row group, which is kept for the next map of it."""
    return _open_table(uri).read_row_group(group, list(columns))


def _stamp(uri: str) -> str:
    system, path = Location.parse(uri).open()
    (info,) = system.get_file_info([path])
    return f"{info.size}@{info.mtime_ns}"


def _open_table(uri: str) -> pq.ParquetFile:
    place = Location.parse(uri)
    system, path = place.open()
    try:
        return pq.ParquetFile(system.open_input_file(path))
    except FileNotFoundError:
        raise BadImage("no such file") from None
    except pa.ArrowInvalid as error:
        raise BadImage(f"not a readable Parquet file: {first_line(error)}") from error
    except OSError as error:
        if not place.is_local:
            raise StoreError(f"{place}: {describe_outage(error)}") from error
        raise BadImage(f"cannot be read: {first_line(error)}") from error
