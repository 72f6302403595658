"""Decoding of valid and invalid image files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ancd_ray.data.images import (
    BadImage,
    decode_mask,
    decode_rgb,
    encode_png,
    image_size,
    is_image,
    read_bytes,
)
from ancd_ray.data.map_files import decode_map


def _encode(array: np.ndarray, mode: str | None = None, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, format)
    return buffer.getvalue()


GRADIENT = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOR = np.stack([GRADIENT, GRADIENT.T, 255 - GRADIENT], axis=2)


def test_color_gray_palette_and_alpha_become_rgb() -> None:
    assert np.array_equal(decode_rgb(_encode(COLOR)), COLOR)
    assert np.array_equal(decode_rgb(_encode(GRADIENT))[..., 1], GRADIENT)
    assert decode_rgb(_encode(COLOR, "P")).shape == (16, 16, 3)
    assert np.array_equal(decode_rgb(_encode(np.dstack([COLOR, GRADIENT]))), COLOR), "alpha is dropped"


def test_16_bits_keep_their_range() -> None:
    deep = (GRADIENT.astype(np.uint16) * 257).astype(np.uint16)
    assert np.array_equal(decode_rgb(_encode(deep))[..., 0], GRADIENT)


def test_extreme_shapes() -> None:
    assert decode_rgb(_encode(np.zeros((1, 1), np.uint8))).shape == (1, 1, 3)
    long = _encode(np.zeros((9, 12000), np.uint8))
    assert image_size(long) == (12000, 9)
    assert decode_rgb(long).shape == (9, 12000, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_is_a_bad_image(format: str) -> None:
    data = _encode(COLOR.repeat(8, 0).repeat(8, 1), format=format)
    with pytest.raises(BadImage) as error:
        decode_rgb(data[: len(data) // 2])
    assert "\n" not in str(error.value)


def test_text_and_nothing_are_bad_images(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="known format"):
        image_size(b"this is a text file named .png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(BadImage, match="empty"):
        read_bytes(str(tmp_path / "empty.png"))
    with pytest.raises(BadImage, match="no such file"):
        read_bytes(str(tmp_path / "none.png"))


def test_a_decompression_bomb_is_rejected_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ancd_ray.data.images.MAX_PIXELS", 100)
    with pytest.raises(BadImage, match="more than 100"):
        decode_rgb(_encode(COLOR))


def test_masks_of_all_conventions() -> None:
    shape = GRADIENT > 100
    expected = shape * 255
    for array in (shape.astype(np.uint8), expected.astype(np.uint8), shape):
        assert np.array_equal(decode_mask(_encode(array)), expected)
    assert np.array_equal(decode_mask(_encode(np.dstack([expected.astype(np.uint8)] * 3))), expected)
    assert not decode_mask(_encode(np.zeros((4, 4), np.uint8))).any()


def test_maps() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    buffer = io.BytesIO()
    np.save(buffer, values[None])
    assert np.array_equal(decode_map(buffer.getvalue()), values)
    assert decode_map(_encode(GRADIENT)).dtype == np.uint8
    assert np.array_equal(decode_map(_encode(GRADIENT > 100)), GRADIENT > 100), "one bit a pixel"
    for bad in (np.full((2, 2), np.inf), np.zeros((2, 2, 3)), np.array(["a"])):
        buffer = io.BytesIO()
        np.save(buffer, bad)
        with pytest.raises(BadImage):
            decode_map(buffer.getvalue())


def test_an_object_array_is_never_unpickled() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(BadImage, match="npy"):
        decode_map(buffer.getvalue())


def test_names_and_png() -> None:
    assert is_image("a/ä ö.PNG")
    assert not is_image("a/.hidden.png")
    assert not is_image("a/notes.txt")
    assert np.array_equal(decode_rgb(encode_png(COLOR)), COLOR)
