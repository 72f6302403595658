"""Arbitrary and mutated files: nothing but its documented error comes out of a decoder or a parser."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancd_ray.data import images
from ancd_ray.data.images import BadImage, decode_mask, decode_rgb, measure_extremes, read_header
from ancd_ray.data.layouts.annotations import AnnotationError
from ancd_ray.data.layouts.coco_file import parse_coco
from ancd_ray.data.layouts.labelme_file import parse_labelme
from ancd_ray.data.layouts.manifest_table import ManifestError, read_manifest
from ancd_ray.data.layouts.table_paths import PathPrefix
from ancd_ray.data.layouts.visa_table import parse_visa
from ancd_ray.data.map_files import decode_map
from ancd_ray.data.shapes import draw_mask
from tests.odd_files import ODD

pytestmark = pytest.mark.timeout(300)

VALID = [odd.data for odd in ODD.values() if not (isinstance(odd.image, str) and isinstance(odd.map, str))]
EXTREMES = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
]


@st.composite
def mutated(draw: st.DrawFn, valid: list[bytes], words: list[bytes] = EXTREMES) -> bytes:
    """Bytes of a valid file of which a few spans are flipped, cut out, overwritten or inserted; most near the start."""
    data = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, min(len(data), 200)), st.integers(0, len(data))))
        new = draw(
            st.one_of(st.sampled_from(words), st.binary(max_size=4), st.sampled_from(valid).map(lambda d: d[:40]))
        )
        left_out = draw(st.one_of(st.just(len(new)), st.integers(0, 4), st.just(0), st.integers(0, len(data))))
        data = data[:at] + new + data[at + left_out :]
    return data


@pytest.fixture(autouse=True, scope="module")
def _small_images() -> Iterator[None]:
    """A header that promises a hundred megapixels is allowed, but would take a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", 200_000)
        yield


def _call(function: Callable[..., Any], error: type[Exception], *arguments: Any) -> Any:
    """Return what a function returns, or None if it raises its error with one line; warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return function(*arguments)
        except error as refused:
            assert len(str(refused).splitlines()) == 1  # noqa: PT017
            return None


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=300), mutated(VALID)))
def test_decoders(data: bytes) -> None:
    header = _call(read_header, BadImage, data)
    rgb, mask, anomaly_map = (_call(decode, BadImage, data) for decode in (decode_rgb, decode_mask, decode_map))
    extremes = _call(measure_extremes, BadImage, data)
    if rgb is not None:
        assert header is not None
        assert (rgb.shape, rgb.dtype) == ((header.height, header.width, 3), np.uint8)
        assert extremes is not None
        assert np.isfinite(extremes[1:]).all()
    if mask is not None:
        assert header is not None
        assert (mask.shape, mask.dtype) == ((header.height, header.width), np.uint8)
        assert set(np.unique(mask)) <= {0, 255}
    if anomaly_map is not None:
        assert anomaly_map.ndim == 2
        assert anomaly_map.size
        assert anomaly_map.dtype.isnative
        assert np.isfinite(anomaly_map).all()


def _parquet() -> list[bytes]:
    table = pa.table({"uri": ["a.png", "b.png"], "label": pa.array(["x", None]).dictionary_encode(), "time": [1, 2]})
    written = []
    for options in ({}, {"compression": "none"}, {"compression": "gzip", "data_page_version": "2.0"}):
        out = io.BytesIO()
        pq.write_table(table, out, **options)
        written.append(out.getvalue())
    return written


CSV = b'# list\nuri;label;mask;role\r\n"a b.png";hole;m\\1.png;\r\nb.png;"x;\n y";;normal\n#3.png;;;test\n'
TABLES = [CSV, CSV.decode().encode("utf-16"), CSV.replace(b";", b","), b"\xef\xbb\xbf" + CSV, *_parquet()]
SIGNS = [b'"', b";", b",", b"\r", b"\n", b"#", b"\\\\", b"C:", b"\0", b"sep=|\n", b"\xff\xfe", b"\x85", b"../", b"://"]


PREFIX = PathPrefix.model_validate({"from": "D:\\archive", "to": ""})
TEXTS = st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode))


@settings(max_examples=200)
@given(st.one_of(TEXTS, mutated(TABLES, [*SIGNS, *EXTREMES])), st.sampled_from(["a.csv", "a.parquet"]), st.booleans())
def test_tables(data: bytes, name: str, with_prefix: bool) -> None:
    manifest = _call(read_manifest, ManifestError, data, name, PREFIX if with_prefix else None)
    for found in (manifest, _call(parse_visa, ManifestError, data, name)):
        if found is not None:
            assert all(row.uri and row.row > 0 for row in found.rows)
            assert all(len(note.splitlines()) == 1 for note in found.notes)


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}, {"id": 2, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 2]], "area": 3.0, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [3, 4], "counts": [3, 2, 7]}},
        {"id": 3, "image_id": 2, "category_id": 2, "bbox": [1, 1, 2, 1.5], "attributes": {"rotation": 30}},
    ],
    "categories": [{"id": 1, "name": "hole"}, {"id": 2, "name": "dent"}],
}
LABELME = {
    "version": "5.0",
    "flags": {"seen": True},
    "shapes": [
        {"label": "hole", "points": [[0, 0], [3, 0], [3, 2]], "shape_type": "polygon"},
        {"label": "dent", "points": [[1, 1], [2, 2]], "shape_type": "circle"},
        {"label": "dent", "points": [[1, 1], [2, 2]], "shape_type": "rectangle", "group_id": None},
    ],
    "imagePath": "a.png",
    "imageWidth": 4,
    "imageHeight": 3,
}
JSON = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b",",
        b":",
        b"1e999",
        b"NaN",
        b"-Infinity",
        b"null",
        b"true",
        b"-1",
        b"[[]]",
        b"[" * 5000,
    ),
    *(b"9" * 5000, b'"\\ud800"', b"\\u0000", b"\xff\xfe", b"\xef\xbb\xbf", b"1e308", b"0.5", b'"x"', b"{}", b"[]"),
]


def _documents(document: Any) -> list[bytes]:
    text = json.dumps(document)
    return [text.encode(), json.dumps(document, indent=1).encode(), text.encode("utf-16"), text.encode("utf-8-sig")]


def _draw(shapes: str | None) -> None:
    if shapes is not None:
        mask = _call(draw_mask, BadImage, shapes, 3, 4)
        assert mask is None or mask.shape == (3, 4)


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=100), mutated(_documents(COCO), JSON)))
def test_coco(data: bytes) -> None:
    found = _call(parse_coco, AnnotationError, data, "coco.json")
    for image in found.images if found else ():
        image.label.encode()
        assert image.problem is None or len(image.problem.splitlines()) == 1
        _draw(image.shapes)
    assert all(len(note.splitlines()) == 1 for note in (found.notes if found else ()))


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=100), mutated(_documents(LABELME), JSON)))
def test_labelme(data: bytes) -> None:
    found = _call(parse_labelme, AnnotationError, data, "a.json")
    if found is not None:
        found.label.encode()
        assert all(len(note.splitlines()) == 1 for note in found.notes)
        _draw(found.shapes)
