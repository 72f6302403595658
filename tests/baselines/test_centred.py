"""Features of some regions, read part by part."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ancd_ray.discovery.features.calibration import calibrate
from ancd_ray.discovery.features.region_features import read_comparison_features

FEATURES = np.random.default_rng(0).normal(size=(9, 4))
PARTS = {"a": slice(0, 4), "b": slice(4, 4), "c": slice(4, 9)}


def _features(read: list[str]) -> Any:
    def read_part(part: Any, columns: list[str]) -> pa.Table:
        read.append(part.file)
        return pa.table({columns[0]: FEATURES[PARTS[part.file]].tolist()})

    parts = [SimpleNamespace(file=file, rows=rows.stop - rows.start) for file, rows in PARTS.items()]
    return SimpleNamespace(parts=parts, num_rows=len(FEATURES), read_part=read_part, values={"widths": [1, 3]})


@pytest.mark.parametrize(
    ("rows", "files"), [(None, ["a", "c"]), ([0, 3, 4, 8], ["a", "c"]), ([5, 6, 7], ["c"]), ([1, 2], ["a"])]
)
def test_rows_are_found_across_parts(rows: list[int] | None, files: list[str]) -> None:
    read: list[str] = []
    found = read_comparison_features(_features(read), None if rows is None else np.array(rows))
    wanted = FEATURES if rows is None else FEATURES[rows]
    np.testing.assert_allclose(found, calibrate(wanted, (1, 3)))
    assert read == files
