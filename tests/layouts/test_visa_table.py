"""Tables of VisA: the labels of an object's images, and the split of all objects."""

from __future__ import annotations

import pytest

from ancd_ray.data.layouts.manifest_table import ManifestError, ManifestRow
from ancd_ray.data.layouts.visa_table import parse_visa


def test_the_table_of_an_object() -> None:
    table = parse_visa(
        b'image,label,mask\npcb1/Data/Images/Normal/0.JPG,normal,\npcb1/Data/Images/Anomaly/0.JPG,"scratch, bent",'
        b"pcb1/Data/Masks/Anomaly/0.png\npcb1/Data/Images/Anomaly/1.JPG,melt,pcb1/Data/Masks/Anomaly/1.png\n",
        "image_anno.csv",
    )
    assert [(row.uri, row.label, row.mask) for row in table.rows] == [
        ("pcb1/Data/Images/Normal/0.JPG", "good", None),
        ("pcb1/Data/Images/Anomaly/0.JPG", "bent+scratch", "pcb1/Data/Masks/Anomaly/0.png"),
        ("pcb1/Data/Images/Anomaly/1.JPG", "melt", "pcb1/Data/Masks/Anomaly/1.png"),
    ]


def test_the_split_of_all_objects() -> None:
    table = parse_visa(
        b"object,split,label,image,mask\ncandle,train,normal,candle/0.JPG,\ncandle,test,normal,candle/1.JPG,\n"
        b"pcb1,test,anomaly,pcb1/2.JPG,pcb1/2.png\n",
        "1cls.csv",
    )
    assert table.rows == [
        ManifestRow("candle/0.JPG", "good", None, "normal", None, 2),
        ManifestRow("candle/1.JPG", "good", None, "query", None, 3),
        ManifestRow("pcb1/2.JPG", "anomaly", "pcb1/2.png", "query", None, 4),
    ]


def test_a_table_without_images_is_one_line() -> None:
    with pytest.raises(ManifestError, match=r"^1cls\.csv: row 1: no column 'uri'"):
        parse_visa(b"object,label\ncandle,normal\n", "1cls.csv")
