"""Odd files of images, masks and anomaly maps, made here byte by byte, and what each decoder makes of them.

Every entry of `ODD` is what one finds in archives: files that were cut off, have the wrong name, or use a corner of
their format. The pictures are small enough to be known by heart: `GRAY` has a value per pixel, `BLOCKS` survives JPEG.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Array = NDArray[Any]
ROWS, COLUMNS = 6, 10
GRAY = (np.arange(ROWS * COLUMNS, dtype=np.uint8) * 4).reshape(ROWS, COLUMNS)
COLOR = np.dstack([GRAY, GRAY[::-1], 255 - GRAY])
INDEX = GRAY // 4 % 4  # 0 to 3
DEEP = GRAY.astype(np.uint16) * 257 + 3
BLOCKS = np.kron(np.array([[60, 200], [20, 230]], np.uint8), np.ones((16, 16), np.uint8))
FLOATS = np.linspace(-2, 3, ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)


class Odd(NamedTuple):
    """A file, and for each decoder the array that it gives, or a pattern of the reason why it gives none."""

    data: bytes
    image: Array | str
    mask: Array | str
    map: Array | str
    tolerance: int = 0  # of values, where the format is lossy


def _rgb(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values


def _foreground(values: Array, threshold: float = 0) -> Array:
    found = values.max(axis=2) if values.ndim == 3 else values
    return np.where(found > threshold, 255, 0).astype(np.uint8)


NOT_A_MAP = "must have one number per pixel"


def _gray(data: bytes, values: Array = GRAY, **other: Any) -> Odd:
    """Expect a gray picture of 8 bits."""
    return Odd(data, _rgb(values), _foreground(values), values)._replace(**other)


def _color(data: bytes, values: Array = COLOR, **other: Any) -> Odd:
    """Expect a colored picture, which is no map."""
    return Odd(data, values, _foreground(values), NOT_A_MAP)._replace(**other)


def _blocks(data: bytes, **other: Any) -> Odd:
    """Expect the gray blocks, as JPEG keeps them."""
    return Odd(data, _rgb(BLOCKS), _foreground(BLOCKS, 127), BLOCKS, 3)._replace(**other)


def _bad(data: bytes, reason: str) -> Odd:
    """Expect a refusal by all decoders."""
    return Odd(data, reason, reason, reason)


def _map(values: Any, expected: Array | str | None = None, **options: Any) -> Odd:
    """Expect a map of an .npy file, which is no image."""
    data = npy(np.asarray(values), **options)
    return Odd(data, "known format", "known format", np.asarray(values) if expected is None else expected)


def save(picture: Array | Image.Image, format: str, **options: Any) -> bytes:
    """Encode by Pillow."""
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, format, **options)
    return buffer.getvalue()


# --- PNG


def chunk(name: bytes, data: bytes = b"", crc: int | None = None) -> bytes:
    """Make a chunk of a PNG."""
    crc = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def png(
    width: int,
    height: int,
    depth: int,
    color: int,
    rows: Sequence[bytes] | bytes,
    *chunks: bytes,
    interlace: int = 0,
    header_crc: int | None = None,
) -> bytes:
    """Make a PNG of packed rows, or of bytes that are taken for the compressed rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    packed = rows if isinstance(rows, bytes) else zlib.compress(b"".join(b"\0" + row for row in rows))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header, header_crc)
    return start + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND")


def pack(values: Array, bits: int) -> list[bytes]:
    """Pack rows of small numbers, the first one into the highest bits."""
    spread = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return [np.packbits(row).tobytes() for row in spread.reshape(len(values), -1)]


def interlaced(values: Array) -> bytes:
    """Make a PNG in the seven passes of Adam7."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [values[y::dy, x::dx] for x, y, dx, dy in passes]
    rows = [row.tobytes() for part in parts if part.size for row in part]
    return png(values.shape[1], values.shape[0], 8, 0, rows, interlace=1)


PLTE = chunk(b"PLTE", bytes([9, 9, 9, 10, 20, 30, 40, 50, 60, 70, 80, 90]))
PALETTE = np.frombuffer(PLTE[8:20], np.uint8).reshape(4, 3)
COLORS = PALETTE[INDEX]
PNG = png(COLUMNS, ROWS, 8, 0, [row.tobytes() for row in GRAY])
TURN = Image.Exif()
TURN[274] = 6
DEEP_ROWS = [row.astype(">u2").tobytes() for row in DEEP]
DEEP_COLOR = np.dstack([DEEP, DEEP[::-1], 65535 - DEEP])
DEEP_PNG = png(COLUMNS, ROWS, 16, 0, DEEP_ROWS)
DEEP_COLOR_PNG = png(COLUMNS, ROWS, 16, 2, [row.astype(">u2").tobytes() for row in DEEP_COLOR])
NOISE = np.random.default_rng(0).integers(0, 256, (60, 100)).astype(np.uint8)
NOISE_PNG = save(NOISE, "PNG")


def _palette_png(*chunks: bytes, values: Array = INDEX, bits: int = 2, **other: Any) -> Odd:
    data = png(COLUMNS, ROWS, bits, 3, pack(values, bits), *chunks)
    return Odd(data, COLORS, _foreground(INDEX), INDEX)._replace(**other)


PNGS = {
    "png": _gray(PNG),
    "png of 1 bit": _gray(
        png(COLUMNS, ROWS, 1, 0, pack(INDEX % 2, 1)), INDEX % 2 * np.uint8(255), map=(INDEX % 2).astype(bool)
    ),
    "png of 2 bits": _gray(png(COLUMNS, ROWS, 2, 0, pack(INDEX, 2)), INDEX * np.uint8(85)),
    "png of 4 bits": _gray(png(COLUMNS, ROWS, 4, 0, pack(INDEX, 4)), INDEX * np.uint8(17)),
    "png of 16 bits": _gray(DEEP_PNG, GRAY, mask=_foreground(DEEP), map=DEEP),
    "png of 16 bits in color": _color(
        DEEP_COLOR_PNG,
        (DEEP_COLOR >> 8).astype(np.uint8),
        mask=_foreground(DEEP_COLOR),
    ),
    "png of 16 bits with alpha": _color(
        png(COLUMNS, ROWS, 16, 4, [np.dstack([row, row]).astype(">u2").tobytes() for row in DEEP[:, None]]),
        _rgb(GRAY),
        mask=_foreground(DEEP),
    ),
    "png of 16 bits with a background color": _gray(
        png(COLUMNS, ROWS, 16, 0, DEEP_ROWS, chunk(b"tRNS", b"\0\3")), GRAY, mask=_foreground(DEEP), map=DEEP
    ),
    "png of a palette": _palette_png(PLTE),
    "png of a palette of 8 bits": _palette_png(PLTE, bits=8),
    "png of a palette with transparent entries": _palette_png(PLTE, chunk(b"tRNS", b"\xff\0\x80")),
    "png of gray and alpha": _color(save(np.dstack([GRAY, GRAY]), "PNG"), _rgb(GRAY)),
    "png of color and alpha": _color(save(np.dstack([COLOR, GRAY]), "PNG"), mask=_foreground(GRAY)),
    "png, interlaced": _gray(interlaced(GRAY)),
    "png with gamma": _gray(png(COLUMNS, ROWS, 8, 0, [r.tobytes() for r in GRAY], chunk(b"gAMA", b"\0\0\x10\0"))),
    "png with a color profile": _color(
        save(COLOR, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    ),
    "png with a broken color profile": _color(save(COLOR, "PNG", icc_profile=b"no profile at all")),
    "png with broken exif": _gray(png(COLUMNS, ROWS, 8, 0, [r.tobytes() for r in GRAY], chunk(b"eXIf", b"MM\0*\xff"))),
    "png, animated": _gray(
        save(Image.fromarray(GRAY), "PNG", save_all=True, append_images=[Image.fromarray(255 - GRAY)])
    ),
    "png with a tail": _gray(PNG + b"tail" * 99),
    "png without its end": _gray(PNG[:-12]),
    "png cut in its signature": _bad(PNG[:5], "known format"),
    "png cut in its header": _bad(PNG[:20], "."),
    "png cut after its header": _bad(PNG[:33], "."),
    "png cut in its pixels": _bad(NOISE_PNG[:3000], "decoded"),
    "png cut in the length of its pixels": _bad(PNG[:35], "."),
    "png with a wrong checksum of its header": _bad(png(10, 6, 8, 0, PNG, header_crc=1), "broken|known format"),
    "png with a wrong checksum of its pixels": _gray(PNG[:-13] + b"?" + PNG[-12:]),  # zlib has one of its own
    "png with a wrong bit": _bad(NOISE_PNG[:3000] + bytes([NOISE_PNG[3000] ^ 16]) + NOISE_PNG[3001:], "decoded"),
    "png of 16 bits with a wrong bit": _bad(DEEP_PNG[:90] + bytes([DEEP_PNG[90] ^ 16]) + DEEP_PNG[91:], "decoded"),
    "png of 16 bits in color with a wrong bit": _bad(DEEP_COLOR_PNG[:90] + b"?" + DEEP_COLOR_PNG[91:], "decoded"),
    "png of 16 bits in color cut in its pixels": _bad(DEEP_COLOR_PNG[:150], "decoded"),
    "png that is turned behind its pixels": _gray(
        PNG[:-12] + chunk(b"eXIf", TURN.tobytes()[6:]) + PNG[-12:],
        np.ascontiguousarray(GRAY.T[:, ::-1]),
    ),
    "png without pixels": _bad(PNG[:33] + chunk(b"IEND"), "."),
    "png with pixels that are no zlib stream": _bad(png(10, 6, 8, 0, b"no zlib stream"), "decoded"),
    "png with too few rows in a whole stream": _gray(
        png(COLUMNS, 2 * ROWS, 8, 0, [row.tobytes() for row in GRAY]), np.vstack([GRAY, 0 * GRAY])
    ),
    "png of no width": _bad(png(0, 6, 8, 0, [b""] * 6), "."),
    "png of no height": _bad(png(10, 0, 8, 0, []), "."),
    "png of 3 bits": _bad(png(10, 6, 3, 0, [b"1234"] * 6), "known format"),
    "png of a palette without a palette": _palette_png(image=np.zeros_like(COLOR)),
}


# --- JPEG


def _frame_size(data: bytes, height: int, width: int) -> bytes:
    """Return a JPEG whose frame header says another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


JPEG = save(BLOCKS, "JPEG", quality=95)
BLOCKS_COLOR = np.dstack([BLOCKS, np.full_like(BLOCKS, 90), 255 - BLOCKS])
NOISE_JPEG = save(NOISE, "JPEG")
CMYK = Image.fromarray(255 - BLOCKS_COLOR).convert("RGB")
EXIF = Image.Exif()
EXIF[274] = 9  # orientations are 1 to 8

JPEGS = {
    "jpeg": _blocks(JPEG),
    "jpeg, progressive": _blocks(save(BLOCKS, "JPEG", quality=95, progressive=True)),
    "jpeg in color": _color(
        save(BLOCKS_COLOR, "JPEG", quality=95, subsampling=0), BLOCKS_COLOR, mask=_foreground(BLOCKS_COLOR, 127)
    )._replace(tolerance=5),
    "jpeg in cmyk": Odd(
        save(Image.fromarray(BLOCKS_COLOR).convert("CMYK"), "JPEG", quality=95),
        BLOCKS_COLOR,
        _foreground(BLOCKS_COLOR, 127),
        NOT_A_MAP,
        5,
    ),
    "jpeg with an orientation that there is not": _blocks(save(BLOCKS, "JPEG", quality=95, exif=EXIF)),
    "jpeg with broken exif": _blocks(save(BLOCKS, "JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")),
    "jpeg with exif of nonsense": _blocks(save(BLOCKS, "JPEG", quality=95, exif=b"Exif\0\0nonsense")),
    "jpeg with a color profile": _blocks(save(BLOCKS, "JPEG", quality=95, icc_profile=b"\0" * 70000)),
    "jpeg of several pictures": _blocks(
        save(Image.fromarray(BLOCKS), "MPO", save_all=True, quality=95, append_images=[Image.fromarray(255 - BLOCKS)])
    ),
    "jpeg with a tail": _blocks(JPEG + b"\0tail" * 99),
    "jpeg cut in its header": _bad(JPEG[:15], "."),
    "jpeg cut before its frame": _bad(JPEG[: JPEG.index(b"\xff\xc0")], "."),
    "jpeg cut in its frame": _bad(JPEG[: JPEG.index(b"\xff\xc0") + 6], "."),
    "jpeg cut in its pixels": _bad(NOISE_JPEG[: len(NOISE_JPEG) // 2], "decoded"),
    "jpeg of no height": _bad(_frame_size(JPEG, 0, 32), "."),
    "jpeg of no width": _bad(_frame_size(JPEG, 32, 0), "."),
    "jpeg with bytes before it": _bad(b"\r\n" + JPEG, "known format"),
}


# --- TIFF


def tiff(
    values: Array,
    photometric: int = 1,
    order: str = "<",
    next_page: int = 0,
    **tags: Sequence[int] | int,
) -> bytes:
    """Make an uncompressed TIFF of one strip; `tags`, such as `t274=6`, are added or replace others; () removes one."""
    values = np.ascontiguousarray(values)
    samples = values.shape[2] if values.ndim == 3 else 1
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits, kind = 8 * values.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries: dict[int, Sequence[int] | int] = {
        **{256: values.shape[1], 257: values.shape[0], 258: (bits,) * samples, 259: 1, 262: photometric},
        **{273: 8, 277: samples, 278: values.shape[0], 279: len(pixels), 339: (kind,) * samples},
        **{int(name[1:]): value for name, value in tags.items()},
    }
    entries = {tag: value for tag, value in entries.items() if value != ()}
    start = 8 + len(pixels)
    end = start + 2 + 12 * len(entries) + 4
    table, heap = struct.pack(f"{order}H", len(entries)), b""
    for tag, value in sorted(entries.items()):
        numbers = [value] if isinstance(value, int) else list(value)
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        at = packed if len(packed) == 4 else struct.pack(f"{order}I", end + len(heap))
        heap += b"" if len(packed) == 4 else packed
        table += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + at
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", start) + pixels + table + struct.pack(f"{order}I", next_page) + heap


def tiled(values: Array, side: int = 16) -> bytes:
    """Make a TIFF of uncompressed tiles."""
    rows, columns = (-(-length // side) for length in values.shape)
    padded = np.zeros((rows * side, columns * side), values.dtype)
    padded[: values.shape[0], : values.shape[1]] = values
    tiles = padded.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side)
    starts = [8 + i * side * side for i in range(rows * columns)]
    height, width = values.shape
    strips = {"t273": (), "t278": (), "t279": ()}
    tiles_at = {"t322": side, "t323": side, "t324": starts, "t325": [side * side] * len(starts)}
    return tiff(tiles, t256=width, t257=height, **strips, **tiles_at)


COLOR_MAP = [int(level) * 257 for channel in range(3) for level in [*PALETTE[:, channel], *[0] * 252]]
ODD_FLOATS = FLOATS.copy()
ODD_FLOATS[0, :3] = np.nan, np.inf, -np.inf
SIGNED = (DEEP // 4).astype(np.int16) - 300
WIDE = np.zeros((ROWS, COLUMNS), np.float32)
TIFF = save(GRAY, "TIFF")
TURNED = np.ascontiguousarray(COLOR.swapaxes(0, 1)[:, ::-1])


def _scale(values: Array, low: float, high: float) -> Array:
    """Scale floats to 8 bits, as an image that has no product."""
    finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return (np.clip((finite - low) / (high - low), 0, 1) * 255).astype(np.uint8)


TIFFS = {
    "tiff": _gray(TIFF),
    "tiff of the other byte order": _gray(tiff(GRAY, order=">")),
    "tiff, white is 0": _gray(tiff(GRAY, 0), 255 - GRAY),
    "tiff by lzw": _color(save(COLOR, "TIFF", compression="tiff_lzw")),
    "tiff by deflate": _color(save(COLOR, "TIFF", compression="tiff_adobe_deflate")),
    "tiff by packbits": _gray(save(GRAY, "TIFF", compression="packbits")),
    "tiff by jpeg": _blocks(save(BLOCKS, "TIFF", compression="jpeg", quality=95), mask=_foreground(BLOCKS)),
    "tiff by fax": _gray(
        save(Image.fromarray(INDEX > 1), "TIFF", compression="group4"),
        (INDEX > 1) * np.uint8(255),
        map=INDEX > 1,
    ),
    "tiff with tiles": _gray(tiled(NOISE), NOISE),
    "tiff of 64 bits": _gray(save(GRAY, "TIFF", big_tiff=True)),
    "tiff of 16 bits": _gray(tiff(DEEP), mask=_foreground(DEEP), map=DEEP),
    "tiff of 16 bits of the other byte order": _gray(tiff(DEEP, order=">"), mask=_foreground(DEEP), map=DEEP),
    "tiff of 16 bits with signs": _gray(
        tiff(SIGNED), (np.clip(SIGNED, 0, None) >> 6).astype(np.uint8), mask=_foreground(SIGNED), map=SIGNED
    ),
    "tiff of 16 bits in color, turned": _color(
        tiff(DEEP_COLOR, 2, t274=6),
        (np.ascontiguousarray(DEEP_COLOR.swapaxes(0, 1)[:, ::-1]) >> 8).astype(np.uint8),
        mask=_foreground(TURNED),
    ),
    "tiff in color, turned": _color(tiff(COLOR, 2, t274=6), TURNED),
    "tiff of floats": _gray(tiff(FLOATS), _scale(FLOATS, -2, 3), mask=_foreground(FLOATS), map=FLOATS),
    "tiff of doubles": _bad(tiff(FLOATS.astype(np.float64)), "type of pixels"),
    "tiff of floats with holes": _gray(
        tiff(ODD_FLOATS),
        _scale(ODD_FLOATS, float(FLOATS[0, 3]), 3),
        mask=_foreground(ODD_FLOATS),
        map="not finite",
    ),
    "tiff of floats, all nan": _gray(
        tiff(WIDE * np.nan), np.zeros((ROWS, COLUMNS), np.uint8), mask=_foreground(WIDE), map="not finite"
    ),
    "tiff of half floats": _bad(tiff(FLOATS.astype(np.float16)), "."),
    "tiff of a palette": _gray(
        tiff(INDEX, 3, t320=COLOR_MAP), COLORS[..., 0], mask=_foreground(INDEX), map=INDEX
    )._replace(image=COLORS),
    "tiff of a palette with alpha": _color(
        tiff(np.dstack([INDEX, np.full_like(INDEX, 255)]), 3, t320=COLOR_MAP, t338=2), COLORS, mask=_foreground(INDEX)
    ),
    "tiff in cmyk": _color(
        tiff(np.dstack([255 - COLOR, np.zeros_like(GRAY)]), 5, t332=1), COLOR, mask=_foreground(COLOR)
    ),
    "tiff in cmyk of 16 bits": _color(
        tiff(np.dstack([255 - COLOR, np.zeros_like(GRAY)]).astype(np.uint16) * 257, 5, t332=1),
        COLOR,
        mask=_foreground(COLOR),
    ),
    "tiff of five channels": _bad(tiff(np.dstack([COLOR, GRAY, GRAY]), 2), "."),
    "tiff with pages": _bad(
        save(Image.fromarray(GRAY), "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)] * 2), "has 3 pages"
    ),
    "tiff whose pages are a circle": _gray(tiff(GRAY, next_page=8 + GRAY.size)),
    "tiff whose next page is nowhere": _bad(tiff(GRAY, next_page=1 << 30), "."),
    "tiff of no width": _bad(tiff(GRAY, t256=0), "."),
    "tiff without strips": _bad(tiff(GRAY, t273=1 << 30), "decoded"),
    "tiff with too short a strip": _bad(tiff(GRAY, t257=600, t278=600), "decoded"),
    "tiff cut in its pixels": _bad(save(NOISE, "TIFF", compression="tiff_lzw")[:900], "."),
    "tiff cut in its table": _bad(tiff(GRAY)[: 8 + GRAY.size + 30], "."),
    "tiff of its mark alone": _bad(b"II*\0", "."),
}


# --- other formats of images


def bmp(width: int, height: int, bits: int, compression: int, pixels: bytes, palette: bytes = b"") -> bytes:
    """Make a BMP with the header of Windows 3."""
    start = 54 + len(palette)
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0
    )
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels


GRAYS = b"".join(bytes([i, i, i, 0]) for i in range(256))
_BMP_ROWS = np.pad(np.ascontiguousarray(COLOR[..., ::-1]).reshape(ROWS, -1), ((0, 0), (0, 2))).astype(np.uint8)
FRAMES: list[Image.Image] = [Image.fromarray(255 - GRAY).convert("RGB"), Image.fromarray(GRAY // 2).convert("RGB")]
JP2 = save(NOISE, "JPEG2000", irreversible=False)
GIF = save(GRAY, "GIF")

OTHERS = {
    "bmp": _color(save(COLOR, "BMP")),
    "bmp upside down": _color(bmp(COLUMNS, -ROWS, 24, 0, _BMP_ROWS.tobytes())),
    "bmp of run lengths": _gray(
        bmp(COLUMNS, ROWS, 8, 1, b"".join(b"".join(bytes([1, v]) for v in r) + b"\0\0" for r in GRAY[::-1]), GRAYS)
    ),
    "bmp of 16 bits and one row": _color(
        bmp(2, 1, 16, 0, struct.pack("<HH", 0x7C00, 0x001F)), np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    ),
    "bmp of 1 bit": _gray(save(Image.fromarray(INDEX > 1), "BMP"), (INDEX > 1) * np.uint8(255), map=INDEX > 1),
    "bmp of no width": _bad(bmp(0, ROWS, 24, 0, b""), "."),
    "bmp cut in its pixels": _bad(save(COLOR, "BMP")[:99], "."),
    "bmp cut in its header": _bad(save(COLOR, "BMP")[:20], "."),
    "bmp of an unknown compression": _bad(bmp(COLUMNS, ROWS, 8, 99, b"", GRAYS), "."),
    "gif": _gray(GIF, map=GRAY // 4),  # the indices of its palette
    "gif, animated": _gray(save(Image.fromarray(GRAY), "GIF", save_all=True, append_images=FRAMES), map=GRAY // 4),
    "gif, interlaced": _gray(save(GRAY, "GIF", interlace=True), map=GRAY // 4),
    "gif cut in its pixels": _bad(save(NOISE, "GIF")[:2000], "."),
    "gif of no width, with a picture": _gray(b"GIF89a\0\0\6\0" + GIF[10:], map=GRAY // 4),
    "gif without a picture": _bad(b"GIF89a\x0a\0\6\0\0\0\0;", "."),
    "webp without loss": _color(save(COLOR, "WEBP", lossless=True)),
    "webp with loss": _color(
        save(_rgb(BLOCKS), "WEBP", quality=100), _rgb(BLOCKS), mask=_foreground(BLOCKS), tolerance=6
    ),
    "webp with alpha": _color(
        save(np.dstack([COLOR, GRAY]), "WEBP", lossless=True, exact=True), mask=_foreground(GRAY)
    ),
    "webp, animated": _color(
        save(
            Image.fromarray(COLOR),
            "WEBP",
            lossless=True,
            save_all=True,
            append_images=FRAMES,
        )
    ),
    "webp cut in its pixels": _bad(save(NOISE, "WEBP", lossless=True)[:3000], "."),
    "webp of its mark alone": _bad(b"RIFF\0\0\0\0WEBPVP8 ", "."),
    "pbm as text": _gray(
        b"P1 # a comment\n3 2\n# another\n1 0 1\n011", np.array([[0, 255, 0], [255, 0, 0]], np.uint8)
    )._replace(map=np.array([[0, 1, 0], [1, 0, 0]], bool)),
    "pbm": _gray(b"P4 10 2\n\xff\xc0\x00\x00", np.repeat(np.array([[0], [255]], np.uint8), 10, 1))._replace(
        map=np.repeat([[False], [True]], 10, 1)
    ),
    "pgm": _gray(b"P5\n# a comment\n10 6\n255\n" + GRAY.tobytes()),
    "pgm of 2 bits": _gray(b"P5 10 6 3\n" + INDEX.tobytes(), INDEX * np.uint8(85)),
    "pgm of 12 bits": _gray(
        b"P5 10 6 4095\n" + (GRAY * 16.0 + 8).astype(">u2").tobytes(),
        mask=np.full_like(GRAY, 255),
        map=np.round((GRAY * 16.0 + 8) / 4095 * 65535),
    ),
    "pgm of 16 bits": _gray(b"P5 10 6 65535\n" + DEEP.astype(">u2").tobytes(), mask=_foreground(DEEP), map=DEEP),
    "pgm as text of 16 bits": _gray(
        b"P2 10 6 65535\n" + " ".join(map(str, DEEP.ravel().tolist())).encode(), mask=_foreground(DEEP), map=DEEP
    ),
    "ppm": _color(b"P6 10 6 255\n" + COLOR.tobytes()),
    "ppm of 16 bits": _color(b"P6 10 6 65535\n" + (COLOR.astype(">u2") * 257).tobytes()),
    "pfm with holes": Odd(
        b"Pf 10 6 -1.0\n" + ODD_FLOATS[::-1].tobytes(),
        _rgb(_scale(ODD_FLOATS, float(FLOATS[0, 3]), 3)),
        _foreground(ODD_FLOATS),
        "not finite",
    ),
    "pgm cut in its pixels": _bad(b"P5 10 6 255\n" + GRAY.tobytes()[:30], "decoded"),
    "pgm with words": _bad(b"P2 10 6 255\n1 2 three", "."),
    "pgm of no height": _bad(b"P5 10 0 255\n", "."),
    "pgm of a negative size": _bad(b"P5 -10 6 255\n" + GRAY.tobytes(), "."),
    "pgm of no largest value": _bad(b"P5 10 6 0\n" + GRAY.tobytes(), "."),
    "pgm of its mark alone": _bad(b"P5", "."),
    "pgm that never ends its comment": _bad(b"P5 #" + b"x" * 100_000, "."),
    "jpeg 2000": _gray(JP2, NOISE),
    "jpeg 2000 in color": _color(
        save(np.kron(COLOR, np.ones((8, 8, 1), np.uint8)), "JPEG2000", irreversible=False)
    )._replace(
        image=np.kron(COLOR, np.ones((8, 8, 1), np.uint8)), mask=np.kron(_foreground(COLOR), np.ones((8, 8), np.uint8))
    ),
    "jpeg 2000 cut in its header": _bad(JP2[:60], "."),
    "jpeg 2000 of its mark alone": _bad(JP2[:12], "."),
}


# --- .npy


def npy(values: Array, version: tuple[int, int] = (1, 0), shape: Any = None, text: str | None = None) -> bytes:
    """Make an .npy file; `shape`, or the `text` of the whole header, takes the place of the right one."""
    kind = np.lib.format.dtype_to_descr(values.dtype)
    order = values.flags.f_contiguous and not values.flags.c_contiguous
    header = text or repr({"descr": kind, "fortran_order": order, "shape": values.shape if shape is None else shape})
    encoded = header.encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(encoded))
    return b"\x93NUMPY" + bytes(version) + length + encoded + values.tobytes("F" if order else "C")


def _bad_map(data: bytes, reason: str = "npy") -> Odd:
    return Odd(data, "known format", "known format", reason)


def _pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    return buffer.getvalue()


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", content)
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, FLOATS)
    return buffer.getvalue()


NPY = npy(FLOATS)
MAPS = {
    "npy": _map(FLOATS),
    "npy, version 2": _map(FLOATS, version=(2, 0)),
    "npy, version 3": _map(FLOATS, version=(3, 0)),
    "npy by columns": _map(np.asfortranarray(FLOATS)),
    "npy of the other byte order": _map(FLOATS.astype(">f4"), FLOATS),
    "npy of half floats": _map(FLOATS.astype(np.float16)),
    "npy of doubles": _map(FLOATS.astype(np.float64)),
    "npy of truth values": _map(FLOATS > 0),
    "npy of long integers": _map(INDEX.astype(np.int64)),
    "npy with axes of length 1": _map(FLOATS[None, :, :, None], FLOATS),
    "npy of one row": _map(FLOATS[:1]),
    "npy of one column": _map(FLOATS[:, :1]),
    "npy of one pixel": _map(FLOATS[:1, :1]),
    "npy of python 2": _map(FLOATS, text="{'descr': '<f4', 'fortran_order': False, 'shape': (6L, 10L)}"),
    "npy with a tail": Odd(NPY + b"tail", "known format", "known format", FLOATS),
    "npy of one axis": _map(FLOATS.ravel(), NOT_A_MAP),
    "npy of three axes": _map(COLOR, NOT_A_MAP),
    "npy of no axes": _map(np.float32(1), NOT_A_MAP),
    "npy of nothing": _map(FLOATS[:0], NOT_A_MAP),
    "npy with holes": _map(ODD_FLOATS, "not finite"),
    "npy of complex numbers": _map(FLOATS.astype(np.complex64), "npy"),
    "npy of texts": _map(np.array([["a", "b"]]), "npy"),
    "npy of dates": _map(np.array([["2024-05-01"]], "M8[D]"), "npy"),
    "npy of records": _bad_map(npy(FLOATS, text="{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6, 10)}")),
    "npy of pickled objects": _bad_map(_pickled()),
    "npy of a huge shape": _bad_map(npy(FLOATS, shape=(10**9, 10**9))),
    "npy of a shape beyond 64 bits": _bad_map(npy(FLOATS, shape=(10**30, 10**30))),
    "npy of a negative shape": _bad_map(npy(FLOATS, shape=(-6, -10))),
    "npy of an empty shape that is huge": _bad_map(npy(FLOATS, shape=(0, 10**18)), "."),
    "npy of a huge header": _bad_map(npy(FLOATS, version=(2, 0), text="{" + " " * 10**6 + "}")),
    "npy of a header that nests": _bad_map(npy(FLOATS, text="(" * 9000)),
    "npy with a header of 4 GiB that is not there": _bad_map(b"\x93NUMPY\2\0\xff\xff\xff\xff{'descr"),
    "npy of version 9": _bad_map(b"\x93NUMPY\x09\x09" + NPY[8:]),
    "npy cut in its mark": _bad_map(NPY[:5], "known format"),
    "npy cut in its header": _bad_map(NPY[:30]),
    "npy cut in its values": _bad_map(NPY[:-1]),
    "npz": Odd(_npz(), "known format", "known format", FLOATS),
    "npz that is cut": _bad_map(_npz()[:-5], "npz"),
    "npz with values that are cut": _bad_map(_npz().replace(b"(6, 10)", b"(6, 11)"), "npz"),
    "zip of no arrays": _bad_map(_zip(b"text"), "npy"),
    "zip of nothing": _bad_map(b"PK\x05\x06" + bytes(18), "known format"),
}


# --- what is no image at all, whatever its name says

NO_IMAGES = {
    "nothing": _bad(b"", "known format"),
    "zeros": _bad(bytes(1000), "known format"),
    "text": _bad(b"this is no picture", "known format"),
    "a web page of an error": _bad(b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "known format"),
    "svg": _bad(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "known format"),
    "a png in gzip": _bad(gzip.compress(PNG), "known format"),
    "pdf": _bad(save(COLOR, "PDF"), "known format"),
    "postscript": _bad(save(COLOR, "EPS"), "known format"),
    "icon": _bad(save(np.zeros((16, 16, 3), np.uint8), "ICO"), "known format"),
    "a reference to a file of large file storage": _bad(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "known format"
    ),
}


# --- headers that promise more than memory holds

_SIDE = 100_000
_WEBP = save(np.zeros((1, 1, 3), np.uint8), "WEBP", lossless=True)
GIANTS = {
    "png": png(_SIDE, _SIDE, 8, 2, [b""]),
    "png of 1 bit": png(_SIDE, _SIDE, 1, 0, [b""]),
    "png of the largest sides": png(2**31 - 1, 2**31 - 1, 16, 6, [b""]),
    "jpeg": _frame_size(JPEG, 65_500, 65_500),
    "tiff": tiff(GRAY, t256=_SIDE, t257=_SIDE),
    "tiff of 16 bits in color": tiff(DEEP_COLOR, 2, t256=_SIDE, t257=_SIDE),
    "tiff of thousands of channels": tiff(GRAY, t277=18017),
    "bmp": bmp(_SIDE, -_SIDE, 24, 0, b""),
    "gif": b"GIF89a\xff\xff\xff\xff" + GIF[10:],
    "webp": _WEBP[: _WEBP.index(b"VP8L") + 9] + b"\xff\xff\xff\x0f" + _WEBP[_WEBP.index(b"VP8L") + 13 :],
    "pgm": b"P5 100000 100000 255\n",
    "pgm as text": b"P2 100000 100000 65535\n1",
    "jpeg 2000": JP2.replace(struct.pack(">II", *NOISE.shape), struct.pack(">II", _SIDE, _SIDE)),
    "npy": npy(FLOATS, shape=(_SIDE, _SIDE)),
    "png with a text that unpacks to a lot": png(
        COLUMNS, ROWS, 8, 0, [row.tobytes() for row in GRAY], chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9))
    ),
}

ODD: dict[str, Odd] = {**PNGS, **JPEGS, **TIFFS, **OTHERS, **MAPS, **NO_IMAGES}
