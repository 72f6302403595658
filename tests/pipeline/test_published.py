"""What is read of published tables whose files or store are not as usual."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, write_deltalake

from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from ancd_ray.jobs.classify.publish import Published, make_published_schema

TABLE = "quarantine"


def _write(output: Path, states: list[str], **configuration: str) -> None:
    schema = make_published_schema(TABLE)
    rows: list[dict[str, Any]] = [
        {**dict.fromkeys(schema.names, "x"), "product": "tile", "image_id": f"i{i}", "state": state}
        for i, state in enumerate(states)
    ]
    place = output / "archive" / TABLE
    if not place.exists():
        DeltaTable.create(str(place), schema, partition_by=["product"], configuration=configuration)
    write_deltalake(str(place), pa.Table.from_pylist(rows, schema), mode="append")


@pytest.mark.parametrize("indexed", ["32", "0"])
def test_rows_are_counted_whether_or_not_their_writer_left_statistics(tmp_path: Path, indexed: str) -> None:
    _write(tmp_path, ["a", "a", "a"], **{"delta.dataSkippingNumIndexedCols": indexed})
    _write(tmp_path, ["b", "c"])
    found = Published.read(Folder(str(tmp_path)))
    assert dict(found.counts[TABLE]) == {("tile", "a"): 3, ("tile", "b"): 1, ("tile", "c"): 1}
    assert not found.damaged


def test_a_store_that_does_not_answer_is_no_damaged_table(tmp_path: Path) -> None:
    _write(tmp_path, ["a"])
    published = Published.read(Folder(str(tmp_path)))
    dataset = published.open(TABLE)
    assert isinstance(dataset, ds.Dataset)

    class Away:
        def to_batches(self, **_: Any) -> Any:
            raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7")

    with patch.dict(published._opened, {TABLE: Away()}):
        with pytest.raises(StoreError, match=r"a file of this table cannot be read .* delete this folder"):
            list(published.scan(TABLE))  # on a disk: it is the file
        with patch.object(Folder, "is_local", False):
            with pytest.raises(StoreError) as away:
                list(published.scan(TABLE))
            assert "delete" not in str(away.value)
