"""Reads and decodes untrusted image files: header first, limited formats and sizes, one-line reasons for rejection."""

from __future__ import annotations

import io
import posixpath
import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ancd_ray.data.store import StoreError, filesystem

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 120_000_000  # a 12,000 x 10,000 line scan; larger ones are errors or decompression bombs

ImageU8 = NDArray[np.uint8]


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
    """
    try:
        system, path = filesystem(uri)
        with system.open_input_stream(path) as stream:
            data = bytes(stream.read())
    except FileNotFoundError:
        raise BadImage("no such file") from None
    except (OSError, StoreError) as error:
        raise BadImage(f"cannot be read: {_first_line(error)}") from error
    if not data:
        raise BadImage("the file is empty (0 bytes)")
    return data


def image_size(data: bytes) -> tuple[int, int]:
    """Read (width, height) in pixels from the header.

    Raises
    ------
    BadImage
        The file has no known image format, or the image is too large.
    """
    return _open(data).size


def decode_rgb(data: bytes) -> ImageU8:
    """Decode an image to (H, W, 3) uint8: palettes are resolved, alpha is dropped, 16 bits are scaled to 8.

    Pixels are kept as stored: EXIF rotation is not applied, since the mask would no longer match.

    Raises
    ------
    BadImage
        The file is truncated or broken, has no known image format, or the image is too large.
    """
    image = _load(data)
    if image.mode.startswith("I") or image.mode == "F":
        gray = _to_8_bit(np.asarray(image))
        return np.repeat(gray[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def decode_mask(data: bytes) -> ImageU8:
    """Decode a mask to (H, W) uint8: 255 where the largest channel is in the upper half of its range, else 0.

    A mask with maximum 1 is interpreted as a class map, in which 1 is foreground.

    Raises
    ------
    BadImage
        See `decode_rgb`.
    """
    image = _load(data)
    if image.mode == "P":
        values = np.asarray(image.convert("RGB"))
    elif "A" in image.getbands():
        values = np.asarray(image.convert("RGB" if "R" in image.getbands() else "L"))
    else:
        values = np.asarray(image)
    if values.ndim == 3:
        values = values.max(axis=2)
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    top = values.max(initial=0)
    threshold = 0 if top <= 1 else 127 if top <= 255 else 32767
    return (values > threshold).astype(np.uint8) * 255


def decode_map(data: bytes) -> NDArray[Any]:
    """Decode a stored anomaly map (H, W) without scaling: .npy (float or integer), or grayscale PNG or TIFF.

    Raises
    ------
    BadImage
        The file has none of these formats, is not two-dimensional, or has values that are not finite.
    """
    if data[:6] == b"\x93NUMPY":
        try:
            values = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise BadImage(f"not a readable .npy file: {_first_line(error)}") from error
    else:
        values = np.asarray(_load(data))
    values = np.asarray(np.squeeze(values))
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiub":
        raise BadImage(f"an anomaly map must have one number per pixel, but is {values.dtype} of shape {values.shape}")
    if not np.isfinite(values).all():
        raise BadImage("the anomaly map has values that are not finite")
    return values


def encode_png(array: ImageU8) -> bytes:
    """Encode (H, W) or RGB (H, W, 3) uint8 as a lossless PNG, optimized for speed rather than size.

    RGB images with equal channels are stored as grayscale.
    """
    if array.ndim == 3:
        red, green, blue = cv2.split(array)
        is_gray = np.array_equal(red, green) and np.array_equal(green, blue)
        array = np.asarray(red if is_gray else cv2.merge([blue, green, red]), np.uint8)
    return bytes(cv2.imencode(".png", array, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])[1])


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow's limit is lower for some formats
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError:
            raise BadImage("not an image of a known format (PNG, JPEG, BMP, TIFF, WebP)") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise BadImage("too many pixels") from None
        except (OSError, ValueError, SyntaxError) as error:
            raise BadImage(f"the header is broken: {_first_line(error)}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels are more than {MAX_PIXELS:,}")
    return image


def _load(data: bytes) -> Image.Image:
    image = _open(data)
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        raise BadImage(f"the image cannot be decoded: {_first_line(error)}") from error
    return image


def _to_8_bit(values: NDArray[Any]) -> ImageU8:
    """Scale 16-bit integers from their full range, floats from 0..1 or, if values exceed it, from their own range."""
    if values.dtype.kind in "iu":
        return np.asarray(np.clip(values, 0, 65535) // 257, np.uint8)
    values = np.nan_to_num(values)
    low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (float(values.min()), float(values.max()))
    return np.asarray((values - low) / max(high - low, 1e-12) * 255, np.uint8)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
