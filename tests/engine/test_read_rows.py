"""Rows of a table in parts: what is read is what `read` gives, and no part without wanted rows is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ancd_ray.data.store import Folder
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.outputs import Output, write_part


def _table(folder: Path, sizes: tuple[int, ...]) -> Table:
    parts, start = [], 0
    for index, size in enumerate(sizes):
        rows = [
            {"product": "p", "level": "image", "name": str(row), "value": float(row)}
            for row in range(start, start + size)
        ]
        parts.append(write_part(Folder(str(folder)), "metrics", index, rows))
        start += size
    return Table(Output(Folder(str(folder)), {"tables": {"metrics": [vars(part) for part in parts]}}), "metrics")


@pytest.mark.parametrize("rows", [[], [0], [3, 4, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8], [5, 7]])
def test_some_rows_across_parts(tmp_path: Path, rows: list[int]) -> None:
    table = _table(tmp_path, (4, 0, 4, 1))
    found = table.read_rows(np.array(rows, np.int64), ["name", "value"])
    assert found.to_pylist() == [table.read(["name", "value"]).to_pylist()[row] for row in rows]


def test_other_parts_are_not_opened(tmp_path: Path) -> None:
    table = _table(tmp_path, (4, 4))
    (tmp_path / table.parts[0].file).unlink()
    assert table.read_rows(np.array([4, 7])).column("name").to_pylist() == ["4", "7"]
