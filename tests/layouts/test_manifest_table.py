"""Manifests as people have them: read as they are meant, or refused in one line with row, column and remedy."""

from __future__ import annotations

import datetime
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ancd_ray.data.layouts.manifest_table import ManifestError, ManifestRow, read_manifest
from ancd_ray.data.layouts.table_paths import PathPrefix

PREFIX = PathPrefix.model_validate({"from": "D:\\archive", "to": ""})
TWO = [("a/1.png", "hole", "m/1.png"), ("a/2.png", "good", None)]


def _read(text: str, encoding: str = "utf-8", prefix: PathPrefix | None = None) -> list[ManifestRow]:
    return read_manifest(text.encode(encoding), "list.csv", prefix).rows


def _parquet(**columns: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="none")
    return out.getvalue()


def _refusal(data: str | bytes, prefix: PathPrefix | None = None) -> str:
    with pytest.raises(ManifestError) as error:
        read_manifest(data.encode() if isinstance(data, str) else data, "list.csv", prefix)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("list.csv: ")
    return str(error.value).removeprefix("list.csv: ")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", ", ", " ; ", " | "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_separators_line_ends_and_encodings(separator: str, end: str, encoding: str) -> None:
    rows = [
        ("Image", "Class", "Mask Path"),
        *((uri, label, mask or "") for uri, label, mask in TWO),
        ("é.png", "ü", ""),
    ]
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    found = _read(mark + end.join(separator.join(row) for row in rows), encoding)
    assert [(row.uri, row.label, row.mask) for row in found] == [*TWO, ("é.png", "ü", None)]
    assert [row.row for row in found] == [2, 3, 4]


def test_utf16_without_a_mark() -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        assert [row.uri for row in _read("uri,label\na.png,hole\n", encoding)] == ["a.png"]


@pytest.mark.parametrize(
    "header",
    [
        "uri,label,mask",
        "PATH,CLASS,GT",
        " filename , Defect Type ,ground-truth",
        "img,category,mask_uri",
        '"file","type","Mask"',
    ],
)
def test_names_of_columns(header: str) -> None:
    (row,) = _read(f"{header}\na.png,007,m.png\n")
    assert row == ManifestRow("a.png", "007", "m.png", None, None, 2)


def test_rows_are_those_of_a_text_editor() -> None:
    text = 'sep=;\n# from line 3; "a\n\nuri;label\n\n"a\nb.png";"x; ""y"""\n# a.png;hole\n;;\n#1.png;hole\n'
    table = read_manifest(text.encode(), "list.csv")
    assert [(row.uri, row.label, row.row) for row in table.rows] == [("a\nb.png", 'x; "y"', 6), ("#1.png", "hole", 10)]
    assert table.notes == ["comment lines left out: 2, 8"]


def test_a_comment_sign_within_quotes_is_text() -> None:
    found = _read('uri,label\n"#1.png","x\n# y"\n')
    assert [(row.uri, row.label) for row in found] == [("#1.png", "x\n# y")]


def test_missing_values_and_short_rows() -> None:
    table = read_manifest(b"uri,label,mask,,\na.png\nb.png,NaN,None,,,,\nc.png,none,-,,\n", "list.csv")
    assert [(row.label, row.mask) for row in table.rows] == [(None, None), (None, None), ("none", None)]
    assert table.notes == ["rows with fewer fields than the header, read as without the last ones: 2"]


def test_ignored_columns_are_named() -> None:
    table = read_manifest("no,uri,Operator,line\n1,a.png,Zo\xeb,3\n".encode("latin-1"), "list.csv")
    assert table.notes == ["columns ignored: no, Operator, line", "is not UTF-8: read as Windows-1252"]


def test_roles() -> None:
    values = ["normal", "Train-Good", "train/good", "test", "novel", "", "odd", "train"]
    assert [
        row.role for row in _read("uri,role\n" + "".join(f"{i}.png,{value}\n" for i, value in enumerate(values)))
    ] == [
        *("normal", "normal", "normal", "query", "query", None),
        *("odd", "train"),  # of an unlabelled training image nobody knows whether it is normal
    ]
    assert [row.role for row in _read("uri,split,label\n1.png,train,OK\n2.png,train,hole\n3.png,test,ok\n")] == [
        "normal",
        "query",
        "query",
    ]


def test_a_date_and_a_time_are_one_field() -> None:
    (row,) = _read("Time;Date;File\n08:15;2024-05-01;a.png\n")
    assert row.captured_at == "2024-05-01 08:15"


def test_paths_of_windows() -> None:
    assert [
        row.uri for row in _read("uri\na\\b.png\n.\\a\\c.png\n./a//d.png\ns3://b/a//x.png\n/mnt/e.png\n12:30.png\n")
    ] == [*("a/b.png", "a/c.png", "a/d.png", "s3://b/a//x.png", "/mnt/e.png", "12:30.png")]
    found = _read("uri,mask\nd:/archive/a\\1.png,D:\\\\archive\\\\m\\\\1.png\nb\\2.png,\n", prefix=PREFIX)
    assert [(row.uri, row.mask) for row in found] == [("a/1.png", "m/1.png"), ("b/2.png", None)]
    share = PathPrefix.model_validate({"from": "//server/share/", "to": "line 1\\"})
    assert [row.uri for row in _read("uri\n\\\\server\\share\\1.png\n", prefix=share)] == ["line 1/1.png"]
    with pytest.raises(ValidationError):
        PathPrefix.model_validate({"from": "", "to": "x"})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("uri,label\na.png,x\nD:\\archive\\b.png,y\n", ["row 3", "'uri'", "path_prefix", "from: 'D:/archive'"]),
        ("uri,mask\na.png,\\\\server\\share\\m.png\n", ["row 2", "'mask'", "from: '//server/share'"]),
        ("", ["empty"]),
        ("\ufeff\r\n\r\n", ["empty"]),
        ("a.png,hole\nb.png,hole\n", ["row 1", "names no columns", "uri,label,mask"]),
        ("name,label\na,hole\n", ["row 1", "'name', 'label'", "rename"]),
        ("uri,label,label\na.png,x,y\n", ["row 1", "'label' (number 2) and 'label' (number 3)", "rename"]),
        ("image,path\na.png,x\n", ["row 1", "'image' (number 1) and 'path' (number 2)"]),
        ("uri,label\na.png,x\nb,c.png,y\n", ["row 3", "3 fields", "quotes"]),
        ("uri,label\na.png,x\n,y\n", ["row 3", "'uri'", "no path"]),
        ('uri,label\na.png,"x\nb.png,y\n', ["row 2", "quote"]),
        ('uri,label\n\na.png,"x"y\n', ["row 3", "quote"]),
        ("uri,label\na.png," + "x" * 200_000, ["row 2", "too long"]),
        ("uri,label\n.\\,x\n", ["row 2", "folder"]),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, parts: list[str]) -> None:
    message = _refusal(text)
    assert all(part in message for part in parts), message


def test_what_is_no_text_is_one_line() -> None:
    assert "row 2" in _refusal(b"uri,label\na\x81.png,x\n")
    assert "row 2: has a NUL character" in _refusal(b"uri,label\na.png,x\0y\n")
    assert "UTF-16" in _refusal("\ufeffuri\na.png\n".encode("utf-16-le") + b"a")
    assert "Excel" in _refusal(b"PK\x03\x04rest")


def test_a_prefix_ends_with_a_folder() -> None:
    assert "does not begin with path_prefix.from" in _refusal("uri\nD:\\archive2\\a.png\n", PREFIX)
    assert "E:/x" in _refusal("uri\nE:\\x\\a.png\n", PREFIX)


def test_parquet() -> None:
    data = _parquet(
        Path=pa.array(["a\\1.png", "a/2.png"]),
        category=pa.array(["hole", None]).dictionary_encode(),
        mask=pa.array([b"m/1.png", None]),
        timestamp=pa.array([datetime.datetime(2024, 5, 1, 8, 15), None]),
        split=pa.array(["train", "test"]),
        operator=pa.array([1, 2]),
    )
    table = read_manifest(data, "list.parquet")
    assert table.rows == [
        ManifestRow("a/1.png", "hole", "m/1.png", "query", "2024-05-01 08:15:00.000000", 1),
        ManifestRow("a/2.png", None, None, "query", None, 2),
    ]
    assert table.notes == ["columns ignored: operator"]
    numbers = read_manifest(_parquet(uri=["1.png", "2.png"], label=[7.0, np.nan]), "list.parquet").rows
    assert [row.label for row in numbers] == ["7", None]


def test_a_wrong_parquet_file_is_one_line() -> None:
    data = _parquet(uri=["a.png"], label=["x"])
    assert "not a readable Parquet file" in _refusal(data[:-9])
    indices = _parquet(uri=["a.png", "b.png"], label=pa.array(["x", "y"]).dictionary_encode())
    first_and_second, beyond = b"\x04\x01\x01\x03\x02", b"\x04\x01\x08\x04\x2c"
    assert "not a readable Parquet file" in _refusal(beyond.join(indices.rsplit(first_and_second, 1)))
    assert "no column 'uri'" in _refusal(_parquet(name=["a.png"]))
    assert "'image' has struct" in _refusal(_parquet(image=[{"path": "a.png"}]))
    assert "row 2, column 'uri'" in _refusal(_parquet(uri=["a.png", "D:\\b.png"]))
    with pytest.raises(ManifestError, match="Parquet"):
        read_manifest(b"uri\na.png\n", "list.parquet")
