"""Listings in columns are what lists of objects were: elements, rows, digest; but for the memory they take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from ancd_ray.data.listed import ListedImages, TableRows, digest_listing
from ancd_ray.data.roles import ListedImage
from ancd_ray.data.store import digest
from ancd_ray.data.tables import SCHEMAS, conform
from ancd_ray.data.walk import Entry, Files
from ancd_ray.stages.catalog import make_image_id, make_listing_rows

N = 20_000  # more than a chunk


def _generate(n: int) -> Iterator[ListedImage]:
    for i in range(n):
        path = f"p/night-{i * 7919 % 31:02d}/é {i:06d}.png"
        yield ListedImage(
            path,
            f"/archive/{path}",
            "normal" if i % 10 == 0 else "query",
            None if i % 3 else ("", "good", "scratch")[i % 9 // 3],
            (f"/archive/m/{i}.png", f"/archive/m/{i}b.png")[: i % 4 // 2],
            '{"polygon": [[1, 2]]}' if i % 50 == 7 else None,
            "2025-01-02T03:04:05" if i % 2 else None,
            f"{i}@{i * 1000}",
            "it cannot be read" if i % 1000 == 3 else None,
            f"/archive/maps/{i}.npy" if i % 5 else None,
        )


def _make_literal_rows(images: list[ListedImage], is_base: bool, threshold: int | None) -> list[dict[str, Any]]:
    rows = [
        {
            "image_id": make_image_id("p", image.path),
            "product": "p",
            "uri": image.uri,
            "role": "base" if is_base else image.role,
            "label": image.label,
            "mask_uris": list(image.mask_uris) or None,
            "mask_shapes": image.mask_shapes,
            "mask_threshold": threshold,
            "map_uri": image.map_uri,
            "captured_at": image.captured_at,
            "problem": image.problem,
        }
        for image in images
    ]
    return sorted(rows, key=lambda row: str(row["image_id"]))


def test_images_are_a_sequence_in_the_order_of_their_paths() -> None:
    expected = sorted(_generate(N), key=lambda image: image.path)
    images = ListedImages.collect(_generate(N))
    assert list(images) == expected
    assert (len(images), images[0], images[-1], images[N // 2]) == (N, expected[0], expected[-1], expected[N // 2])
    assert list(images[5:8]) == expected[5:8]
    assert list(images[:: N // 10]) == expected[:: N // 10]
    assert ListedImages.collect(expected).table.equals(images.table), "sorted already"
    assert not ListedImages.collect([])
    with pytest.raises(IndexError):
        images[N]


@pytest.mark.parametrize(("is_base", "threshold"), [(False, None), (True, 127)])
def test_rows_and_digest_are_those_of_the_literal_form(is_base: bool, threshold: int | None) -> None:
    images = sorted(_generate(N), key=lambda image: image.path)
    literal = _make_literal_rows(images, is_base, threshold)
    rows = make_listing_rows("p", _generate(N), is_base, threshold)
    assert list(rows) == literal
    assert (rows[0], rows[-1], list(rows[8190:8200])) == (literal[0], literal[-1], literal[8190:8200])
    assert conform(rows[100:900], SCHEMAS["listing"]).equals(conform(literal[100:900], SCHEMAS["listing"]))
    pairs = sorted([image.path, image.stamp] for image in images)
    assert digest_listing(rows, ListedImages.collect(_generate(N))) == digest([literal, pairs])


def test_the_digest_of_a_path_that_is_listed_twice() -> None:
    images = [ListedImage("a", "a", "query", stamp="2@2"), ListedImage("a", "a", "query", stamp="1@1")]
    pairs = sorted([image.path, image.stamp] for image in images)
    literal = _make_literal_rows(images, False, None)
    assert digest_listing(make_listing_rows("p", images, False), images) == digest([literal, pairs])
    assert digest_listing([], []) == digest([[], []])


def test_a_listing_takes_a_few_hundred_bytes_an_image() -> None:
    make_listing_rows("p", _generate(10), False)  # imports
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    images = ListedImages.collect(_generate(5 * N))
    rows = make_listing_rows("p", images, False)
    digest_listing(rows, images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6, "objects of a chunk or two"
    assert (pa.total_allocated_bytes() - before) / (5 * N) < 300


def test_files_are_a_mapping() -> None:
    files = Files()
    for name, size in (("b", 1), ("a", 2), ("c", 3), ("a", 4)):
        files.add(name, Entry(size, None if name == "c" else 10 * size, "odd" if size == 2 else None))
    assert dict(files) == {"a": Entry(4, 40, None), "b": Entry(1, 10), "c": Entry(3, None)}, "the last one counts"
    assert list(files) == ["a", "b", "c"]
    assert files.take("b") == Entry(1, 10)
    assert files.take("d") is None
    assert "d" not in files
    assert list(files.unmarked()) == ["a", "c"]


def test_rows_of_a_table_are_dicts() -> None:
    rows = TableRows(pa.table({"a": [1, 2, 3]}))
    assert (len(rows), rows[1], rows[-1], list(rows[1:])) == (3, {"a": 2}, {"a": 3}, [{"a": 2}, {"a": 3}])
