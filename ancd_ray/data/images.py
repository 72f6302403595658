"""Reads and decodes untrusted image files: header first, limited formats and sizes, one-line reasons for rejection."""

from __future__ import annotations

import io
import logging
import os
import posixpath
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow.fs as pafs
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ancd_ray.config.errors import first_line
from ancd_ray.data.deadline import read_in_time
from ancd_ray.data.location import Location, StoreError, describe_outage
from ancd_ray.data.pixel_range import Extremes, PixelRange

SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2"),
        *(".pgm", ".ppm", ".pnm", ".pbm"),
    }
)
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF", "JPEG2000")
_ORIENTATION, _SUBFILE, _BITS = 274, 254, 258  # tags
_MAX_PAGES = 64
MAX_PIXELS = 120_000_000  # a 12,000 x 10,000 line scan; larger ones are errors or decompression bombs

_IN_STRIPS, _STRIP = 16_000_000, 256  # pixels of an image that is converted by strips, and rows of a strip
MAX_BYTES = 1 << 30
_OF_OBJECT = ("ACCESS_DENIED", "INVALID_OBJECT_STATE")  # errors of S3 that are about one object: private, or archived

ImageU8 = NDArray[np.uint8]

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what Pillow logs of broken files


class BadImage(Exception):
    """A file that cannot be used; the message is one line."""


def is_image(name: str) -> bool:
    """Whether the name has the suffix of a supported image format; hidden files are excluded."""
    file = name.rpartition("/")[2]  # of millions of names: pathlib would take ten times as long
    return posixpath.splitext(file)[1].lower() in SUFFIXES and not file.startswith(".")


def read_bytes(uri: str) -> bytes:
    """Read a file on any filesystem.

    Raises
    ------
    BadImage
        The file does not exist, cannot be read, or is empty.
    StoreError
        The store or the mount does not answer, which says nothing about the file.
    """
    try:
        place = Location.parse(uri)
    except StoreError as error:
        raise BadImage(f"cannot be read: {error}") from error
    system, path = place.open()
    read = partial(_read, system, path)
    try:
        data = read_in_time(place, read) if place.is_local else read()
    except FileNotFoundError:
        raise BadImage("no such file") from None
    except TimeoutError as error:  # of a mount that gives up by itself
        raise StoreError(f"{place}: {describe_outage(error)}") from error
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and not (place.is_local or any(sign in str(error) for sign in _OF_OBJECT)):
            raise StoreError(f"{place}: {describe_outage(error)}") from error
        raise BadImage(f"cannot be read: {first_line(error)}") from error
    if len(data) > MAX_BYTES:
        raise BadImage(f"has more than {MAX_BYTES:,} bytes")
    if not data:
        raise BadImage("the file is empty (0 bytes)")
    return data


def _read(system: pafs.FileSystem, path: str) -> bytes:
    if isinstance(system, pafs.LocalFileSystem):
        _check_file(path)
    with system.open_input_stream(path) as stream:
        return bytes(stream.read(MAX_BYTES + 1))


def _check_file(path: str) -> None:
    """Refuse what is no regular file: a pipe would never end, a device has no end."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
        raise BadImage("not a regular file")


class Header(NamedTuple):
    """What the header of an image says; width and height are those of the upright image."""

    width: int
    height: int
    orientation: int  # EXIF tag 274; 1: as stored
    is_deep: bool  # more than 8 bits a channel


def read_header(data: bytes) -> Header:
    """Read size and orientation from the header of an image.

    Raises
    ------
    BadImage
        The file has no known image format, is too large, or has several pages.
    """
    with rejecting("the header is broken"):
        image = _open(data)
        tag = _read_orientation(image, data)
        width, height = image.size
        if is_transposed(tag) and image.format != "TIFF":  # Pillow swaps the sides of a TIFF itself
            width, height = height, width
        return Header(width, height, tag, _is_deep(image, data))


def image_size(data: bytes) -> tuple[int, int]:
    """Read (width, height) of the upright image in pixels; see `read_header`."""
    header = read_header(data)
    return header.width, header.height


def measure_extremes(data: bytes) -> Extremes:
    """Measure the extremes of a deep image; see `decode_rgb`."""
    return Extremes.of(load_values(data))


def decode_rgb(data: bytes, pixel_range: PixelRange | None = None) -> ImageU8:
    """Decode an image to (H, W, 3) uint8, upright: palettes are resolved, alpha is dropped, deep values are scaled.

    Parameters
    ----------
    data
        Encoded image.
    pixel_range
        Range of the product's deep images; None measures the image itself.

    Raises
    ------
    BadImage
        The file is truncated or broken, has no known image format, or the image is too large.
    """
    values = load_values(data)
    if values.dtype != np.uint8:
        values = (pixel_range or PixelRange.of([Extremes.of(values)])).to_8_bit(values)
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values


def measure_brightness(pixels: ImageU8) -> float:
    """Compute the mean gray level (0..255) of an image (H, W, 3): its luma by ITU-R BT.601."""
    red, green, blue, _ = cv2.mean(pixels)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def decode_mask(data: bytes, threshold: int | None = None) -> ImageU8:
    """Decode a mask to (H, W) uint8: 255 where it is foreground, else 0.

    Foreground are values above 0: numbers of classes, 127, 255 or 4,095 alike. Of a palette these are the indices, of
    an image whose color is constant the alpha channel; a transparent pixel is background. JPEG smears edges, so its
    masks have the threshold 127 by default.

    Parameters
    ----------
    data
        Encoded mask.
    threshold
        Values above it are foreground, for soft edges; None is 0, or 127 in a JPEG.

    Raises
    ------
    BadImage
        See `decode_rgb`.
    """
    return load_values(data, partial(_mark_foreground, threshold=threshold))


def _mark_foreground(image: Image.Image | NDArray[Any], threshold: int | None) -> ImageU8:
    """Return 255 where a loaded mask, or the values of one with deep colors, is foreground."""
    if threshold is None:
        threshold = 127 if getattr(image, "format", None) in ("JPEG", "MPO") else 0
    alpha = None
    if isinstance(image, Image.Image):
        alpha = np.asarray(image.getchannel("A")) if "A" in image.getbands() else None
        if image.mode in ("LA", "RGBA"):
            image = image.convert("L" if image.mode == "LA" else "RGB")
        elif image.mode == "PA":
            image = image.getchannel("P")
        elif image.mode not in ("1", "L", "P", "I", "F", "RGB") and not image.mode.startswith("I;16"):
            image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 3:
        values = values.max(axis=2)
    found = values > threshold
    if alpha is not None and alpha.min() < alpha.max():
        is_drawn = found & (alpha > threshold)
        found = is_drawn if values.min() < values.max() and is_drawn.any() else alpha > threshold
    mask: ImageU8 = np.where(found, np.uint8(255), np.uint8(0))
    return mask


def is_transposed(orientation: int) -> bool:
    """Whether an EXIF orientation swaps the sides of an image."""
    return orientation >= 5


def turn_upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply the EXIF orientation (1 to 8) to an array (H, W) or (H, W, 3)."""
    if is_transposed(orientation):
        array = array.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return array[rows, columns]


def encode_png(array: ImageU8) -> bytes:
    """Encode (H, W) or RGB (H, W, 3) uint8 as a lossless PNG, optimized for speed rather than size.

    RGB images with equal channels are stored as grayscale.
    """
    if array.ndim == 3:
        red, green, blue = cv2.split(array)
        is_gray = np.array_equal(red, green) and np.array_equal(green, blue)
        array = np.asarray(red if is_gray else cv2.merge([blue, green, red]), np.uint8)
    return bytes(cv2.imencode(".png", array, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])[1])


@contextmanager
def rejecting(what: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a `BadImage`: the files are foreign, and their decoders have many errors.

    Their warnings, of metadata or of sizes that `MAX_PIXELS` allows, concern no one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadImage:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise BadImage("too many pixels") from None
    except Exception as error:
        raise BadImage(f"{what}: {first_line(error)}") from error


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"not an image of a known format and type of pixels ({', '.join(_FORMATS)})") from None
    width, height = image.size
    if width < 1 or height < 1:
        raise BadImage("has no pixels")
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels are more than {MAX_PIXELS:,}")
    if image.format == "TIFF" and (pages := _count_pages(image)) > 1:
        raise BadImage(f"has {pages} pages; save each as a file of its own")
    return image


def _count_pages(image: Image.Image) -> int:
    """Count the pages of a TIFF, without reduced copies of a page, such as those of a pyramid."""
    pages = 1
    frames: int = getattr(image, "n_frames", 1)
    for frame in range(1, min(frames, _MAX_PAGES)):
        image.seek(frame)
        pages += not image.tag_v2.get(_SUBFILE, 0) & 1  # type: ignore[attr-defined]
    image.seek(0)
    return pages


def load_values(data: bytes, to_array: Callable[[Any], NDArray[Any]] | None = None) -> NDArray[Any]:
    """Decode to an upright array: by default (H, W) or (H, W, 3), uint8 or deep values.

    `to_array` converts the loaded Pillow image; of deep colors, which Pillow would cut, it gets the values.
    """
    to_array = to_array or _to_colors
    with rejecting("the image cannot be decoded"):
        image = _open(data)
        tag = _read_orientation(image, data)
        image.load()  # deep colors too: Pillow finds what is broken, which OpenCV would print
        is_cut = _is_deep(image, data) and len(image.getbands()) > 1
        values = to_native(to_array(_decode_deep_colors(data) if is_cut else image))
        if image.format == "TIFF":  # Pillow and OpenCV turn it themselves
            return values
        return np.ascontiguousarray(turn_upright(values, tag))


def to_native(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in the machine's byte order, the only one that OpenCV and PyTorch know."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _to_colors(image: Image.Image | NDArray[Any]) -> NDArray[Any]:
    if isinstance(image, Image.Image) and not _is_deep_mode(image.mode) and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    if not isinstance(image, Image.Image) or image.width * image.height < _IN_STRIPS or _is_deep_mode(image.mode):
        return np.asarray(image)
    width, height = image.size  # at once, Pillow would copy it twice
    values = np.empty((height, width) if image.mode == "L" else (height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        values[top : top + _STRIP] = np.asarray(image.crop((0, top, width, min(top + _STRIP, height))))
    return values


def _is_deep_mode(mode: str) -> bool:
    return mode.startswith("I") or mode == "F"


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether an image has more than 8 bits a channel; Pillow would cut colors to their upper 8 bits."""
    if _is_deep_mode(image.mode):
        return True
    if image.mode == "CMYK":
        return False  # OpenCV would take its inks for colors and alpha
    if image.format == "PNG":
        return data[24] == 16  # bit depth in the header
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(_BITS, (8,))) > 8)  # type: ignore[attr-defined]
    return False


def _decode_deep_colors(data: bytes) -> NDArray[Any]:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise BadImage("the image cannot be decoded: its colors have more than 8 bits in a form that is not known")
    return np.asarray(values[..., 2::-1] if values.ndim == 3 else values)


def _read_orientation(image: Image.Image, data: bytes) -> int:
    try:
        # Not the method of PNG files, which decodes the pixels to find a chunk behind them, and hides their faults.
        exif = Image.Image.getexif(image)
        if image.format == "PNG" and not exif:
            exif.load(_find_exif(data))
        tag = exif.get(_ORIENTATION, 1)
    except Exception:  # broken metadata of a good image
        return 1
    return tag if isinstance(tag, int) and 1 <= tag <= 8 else 1


def _find_exif(data: bytes) -> bytes:
    """Find the EXIF of a PNG, wherever it is among its chunks; empty if there is none."""
    at = 8
    while at < len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += 12 + length  # length, name, checksum
    return b""
