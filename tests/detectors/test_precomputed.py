"""Stored maps in every format, as `plan` describes them and as they are scaled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from ancd_ray.data.images import BadImage
from ancd_ray.data.map_files import make_row_uri, read_map_file, read_paths
from ancd_ray.data.roles import ListedImage
from ancd_ray.detectors.precomputed import Precomputed

MAP = np.random.default_rng(0).uniform(0, 3, (20, 30)).astype(np.float32)


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _tiff(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    return buffer.getvalue()


def _png(values: NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(".png", values)[1])


def _score(data: bytes, **keys: Any) -> Any:
    (found,) = (
        Precomputed(name="precomputed", **keys)
        .make_scorer(pytest.fail, {})
        .score([{"map_bytes": data, "map_uri": "a/map"}])
    )
    return found


@pytest.mark.parametrize(
    "data",
    [
        _npy(MAP),
        _npy(MAP[None]),
        _npy(MAP.astype(">f8")),
        _npz(whatever=MAP),
        _npz(score=np.zeros(1), anomaly_map=MAP),
        _tiff(MAP),
    ],
)
def test_floats_are_unchanged(data: bytes) -> None:
    np.testing.assert_array_equal(_score(data), MAP)


def test_integers_are_scaled_to_the_range() -> None:
    deep = np.array([[0, 65535], [13107, 26214]], np.uint16)
    expected = np.array([[0, 5], [1, 2]], np.float32)
    for data in (_png(deep), _tiff(deep), _npy(deep), _npz(map=deep)):
        np.testing.assert_allclose(_score(data, value_range=(0, 5)), expected, rtol=1e-6)
    flat = np.array([[0, 255, 51]], np.uint8)
    np.testing.assert_allclose(_score(_png(flat)), [[0, 1, 0.2]], rtol=1e-6)
    assert _score(_png(flat), value_range=(0, 255)).dtype == np.uint8, "they have an exact path"


def test_inverted_maps_are_reflected() -> None:
    np.testing.assert_allclose(_score(_npy(MAP), anomalous="low", value_range=(0, 3)), 3 - MAP, rtol=1e-6)
    flat = np.array([[0, 255, 51]], np.uint8)
    found = _score(_png(flat), anomalous="low", value_range=(0, 255))
    assert found.dtype == np.uint8
    assert found.tolist() == [[255, 0, 204]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_npy(np.full((2, 2), np.nan)), "not finite"),
        (_npy(np.full((2, 2), 1e300)), "not finite"),
        (_npz(a=MAP, b=MAP), r"several arrays \(a, b\)"),
        (_npz(a=np.array([{}], dtype=object)), "its values are object"),
        (_npz(a=MAP)[:-30], "not a readable .npz file"),
        (_png(np.zeros((4, 4, 3), np.uint8)), "not a picture of it in colors"),
        (_npy(np.full((2, 2), 70000)), "not 8 or 16 bits"),
        (_npy(np.full((2, 2), -1)), "not 8 or 16 bits"),
        (_npy(np.zeros((2, 3, 4))), "one number per pixel"),
    ],
)
def test_what_is_no_map_is_a_reason(data: bytes, said: str) -> None:
    found = _score(data)
    assert isinstance(found, BadImage)
    assert "\n" not in str(found)
    with pytest.raises(BadImage, match=said):
        raise found


def _table(path: Path, columns: dict[str, Any], **options: Any) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def test_rows_of_a_parquet_file(tmp_path: Path) -> None:
    maps = [MAP + n for n in range(5)]
    encoded = _table(
        tmp_path / "a.parquet", {"path": ["a", "b", "c", "d", "e"], "map": [_npy(m) for m in maps]}, row_group_size=2
    )
    sizes = {"dtype": ["float32"] * 5, "height": [20] * 5, "width": [30] * 5}
    plain = _table(
        tmp_path / "b.parquet", {"path": list("abcde"), "map": [m.tobytes() for m in maps], **sizes}, row_group_size=2
    )
    for table in (encoded, plain):
        assert read_paths(table) == list("abcde")
        for n in (4, 0, 3, 1, 2):
            np.testing.assert_array_equal(read_map_file(make_row_uri(table, n)), maps[n])
        with pytest.raises(BadImage, match="5 rows"):
            read_map_file(make_row_uri(table, 5))
    _table(tmp_path / "a.parquet", {"path": ["a"], "map": [_npy(MAP * 2)]})
    np.testing.assert_array_equal(read_map_file(make_row_uri(encoded, 0)), MAP * 2, "a file that has changed")
    wrong = {"path": ["a", "b", "c"], "map": [b"1234"] * 3, "dtype": ["float32", "object", "uint8"]}
    odd = _table(tmp_path / "c.parquet", {**wrong, "height": [1, 1, -2], "width": [2, 1, -2]})
    for row, said in enumerate(("1 x 2 of float32 are not 4 bytes", "dtype 'object'", "-2 x -2 of uint8")):
        with pytest.raises(BadImage, match=said):
            read_map_file(make_row_uri(odd, row))
    with pytest.raises(BadImage, match="no column 'map'"):
        read_paths(_table(tmp_path / "d.parquet", {"path": ["a"]}))
    (tmp_path / "e.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(BadImage, match="not a readable Parquet file"):
        read_paths(str(tmp_path / "e.parquet"))


def _listed(folder: Path, maps: list[bytes], masks: bool) -> list[ListedImage]:
    """Images of 40 x 40 px with a defect in the middle, their maps, and masks of the defects."""
    image, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    mask[15:25, 15:25] = 255
    images = []
    for n, data in enumerate(maps):
        paths = [folder / f"{n}{ending}" for ending in (".png", "_mask.png", ".map")]
        for path, content in zip(paths, (_png(image), _png(mask), data), strict=True):
            path.write_bytes(content)
        mask_uris = (str(paths[1]),) if masks else ()
        images.append(ListedImage(f"{n}.png", str(paths[0]), "query", "dent", mask_uris, map_uri=str(paths[2])))
    return images


def _describe(images: list[ListedImage], **keys: Any) -> str:
    return "\n".join(Precomputed(name="precomputed", **keys).describe_inputs(images))


@pytest.mark.parametrize("masks", [True, False])
def test_inverted_maps_are_said(tmp_path: Path, masks: bool) -> None:
    values = np.zeros((20, 20), np.float32)
    values[7:13, 7:13] = 2
    good, inverted = _npy(values), _npy(2 - values)
    said = _describe(_listed(tmp_path, [good] * 3, masks))
    assert "3 maps looked at: float32, values 0 to 2; maps of 20 x 20 px are resized to their images of 40 x 40" in said
    assert "anomalous" not in said
    images = _listed(tmp_path, [inverted] * 3, masks)
    assert "`detector.anomalous: low` turns them" in _describe(images)
    assert "turns them" not in _describe(images, anomalous="low")
    assert "`detector.anomalous: high`" in _describe(_listed(tmp_path, [good] * 3, masks), anomalous="low")


def test_a_small_area_that_is_low_is_no_inversion(tmp_path: Path) -> None:
    """Masks decide, where there are any: a defect may cover most of an image."""
    values = np.ones((40, 40), np.float32)
    values[:5] = 0
    assert "turns them" in _describe(_listed(tmp_path, [_npy(values)] * 3, masks=False))
    assert "turns them" not in _describe(_listed(tmp_path, [_npy(values)] * 3, masks=True))


def test_odd_maps_are_said(tmp_path: Path) -> None:
    maps = [_png(np.arange(200, dtype=np.uint8).reshape(10, 20)), b"no map", _npy(np.full((2, 2), np.inf))]
    said = _describe(_listed(tmp_path, maps, masks=False), value_range=(0, 2))
    assert "1 of 3 maps looked at cannot be used: not an image of a known format" in said
    assert "1 of 3 maps looked at cannot be used: the anomaly map has values that are not finite" in said
    assert "integers are scaled to 0..2 (detector.value_range)" in said
    assert "which changes their aspect" in said
