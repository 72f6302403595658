"""Features of some regions, read part by part."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ancd_ray.discovery.clusterings.algorithms import calibrated
from ancd_ray.discovery.features.reading import centred

FEATURES = np.random.default_rng(0).normal(size=(9, 4))
PARTS = {"a": slice(0, 4), "b": slice(4, 4), "c": slice(4, 9)}


def _described(read: list[str]) -> Any:
    def read_table(file: str, columns: list[str]) -> pa.Table:
        read.append(file)
        return pa.table({columns[0]: FEATURES[PARTS[file]].tolist()})

    parts = [SimpleNamespace(file=file, rows=rows.stop - rows.start) for file, rows in PARTS.items()]
    return SimpleNamespace(
        parts=lambda _: parts,
        rows=lambda _: len(FEATURES),
        folder=SimpleNamespace(read_table=read_table),
        values={"widths": [1, 3]},
    )


@pytest.mark.parametrize(
    ("rows", "files"), [(None, ["a", "c"]), ([0, 3, 4, 8], ["a", "c"]), ([5, 6, 7], ["c"]), ([1, 2], ["a"])]
)
def test_rows_are_found_across_parts(rows: list[int] | None, files: list[str]) -> None:
    read: list[str] = []
    found = centred(_described(read), None if rows is None else np.array(rows))
    wanted = FEATURES if rows is None else FEATURES[rows]
    np.testing.assert_allclose(found, calibrated(wanted, (1, 3)))
    assert read == files
