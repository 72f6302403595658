"""Opens image files of an archive without trusting them: header first, formats and sizes limited, one-line reasons."""

from __future__ import annotations

import io
import warnings
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ancd_ray.data.store import StoreError, filesystem

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 120_000_000  # a 12,000 x 10,000 line scan; more is a mistake or a bomb

ImageU8 = NDArray[np.uint8]


class BadImage(Exception):
    """A file that cannot be used, with the reason in one line."""


def is_image(name: str) -> bool:
    """Whether the name ends like an image that can be read; hidden files do not count."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_bytes(uri: str) -> bytes:
    """The content of a file on any filesystem.

    Raises:
        BadImage: it is not there, cannot be read, or is empty.
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
    """(width, height) in pixels from the header alone.

    Raises:
        BadImage: not an image of a known format, or too large.
    """
    return _open(data).size


def decode_rgb(data: bytes) -> ImageU8:
    """The image as (H, W, 3) uint8: palettes are looked up, alpha is dropped, 16 bits are scaled to 8.

    The pixels stay as they are stored: an EXIF rotation would tear them from their mask.

    Raises:
        BadImage: truncated, broken, of no known format, or too large.
    """
    image = _load(data)
    if image.mode.startswith("I") or image.mode == "F":
        gray = _to_8_bit(np.asarray(image))
        return np.repeat(gray[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def decode_mask(data: bytes) -> ImageU8:
    """The mask as (H, W) uint8, 255 where its brightest channel is in the upper half of its range, else 0.

    A mask whose largest value is 1 is taken for a class map, not for black.

    Raises:
        BadImage: see `decode_rgb`.
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
    """A stored anomaly map (H, W) in the numbers of its file: .npy (float or integer), or gray PNG or TIFF.

    Raises:
        BadImage: not such a file, not two-dimensional, or with values that are not finite.
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
        raise BadImage(f"an anomaly map has one number a pixel; this one is {values.dtype} of shape {values.shape}")
    if not np.isfinite(values).all():
        raise BadImage("the anomaly map has values that are not finite")
    return values


def encode_png(array: ImageU8) -> bytes:
    """PNG of (H, W) or RGB (H, W, 3) uint8, lossless, fast rather than small; gray images are kept as such."""
    if array.ndim == 3:
        red, green, blue = cv2.split(array)
        is_gray = np.array_equal(red, green) and np.array_equal(green, blue)
        array = np.asarray(red if is_gray else cv2.merge([blue, green, red]), np.uint8)
    return bytes(cv2.imencode(".png", array, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])[1])


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow's own limit is lower for some formats
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
    """16-bit integers over their whole range; floats over 0..1 when they keep to it, else over their own."""
    if values.dtype.kind in "iu":
        return np.asarray(np.clip(values, 0, 65535) // 257, np.uint8)
    values = np.nan_to_num(values)
    low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (float(values.min()), float(values.max()))
    return np.asarray((values - low) / max(high - low, 1e-12) * 255, np.uint8)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
