"""Curves of anomaly maps: a row a shard, merged one after another; a shard that kills its worker can be halved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ancd_ray.data.images import encode_png
from ancd_ray.data.roi import Roi
from ancd_ray.data.store import Folder
from ancd_ray.engine.attempts import list_attempts
from ancd_ray.engine.outputs import Part, Shard, read_finished_shard, write_part
from ancd_ray.method.metrics import MapCurve
from ancd_ray.stages.detect import make_map_row
from ancd_ray.stages.score_maps import CompareMasks

N, SIDE, HIGH = 12, 16, 1.0


def _shard(root: Path, index: int, numbers: range) -> Shard:
    folder, images, maps = Folder(str(root / "in")), [], []
    for i in numbers:
        rng = np.random.default_rng(i)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[i : i + 4, 3:9] = 255
        folder.write(f"masks/{i}.png", encode_png(mask))
        row = {"image_id": f"{i:03d}", "product": "p", "uri": f"{i}.png", "role": "query", "label": "scratch"}
        about = {"width": SIDE, "height": SIDE, "orientation": 1, "digest": ""}
        images.append({**row, **about, "mask_uris": [f"{root}/in/masks/{i}.png"]})
        maps.append(make_map_row(row, (rng.random((SIDE, SIDE)) * (1 + (mask > 0)) / 2).astype(np.float32)))
    parts = {"images": write_part(folder, "images", index, images), "maps": write_part(folder, "maps", index, maps)}
    return Shard(index, {name: (folder, part) for name, part in parts.items()}, len(maps))


def _merge(rows: list[dict[str, Any]]) -> tuple[MapCurve, int]:
    total, compared = MapCurve(0.0, HIGH), 0
    for row in rows:
        compared += row.pop("compared")
        total.merge(MapCurve.from_dict(row))
    return total, compared


def test_curves_of_shards_are_those_of_all_maps(tmp_path: Path) -> None:
    worker = CompareMasks(HIGH)
    whole = worker(_shard(tmp_path, 9, range(N)))
    assert not whole.values, "what the driver would keep for every shard"
    (alone,) = whole.tables["map_curves"]
    rows = [row for i in range(3) for row in worker(_shard(tmp_path, i, range(4 * i, 4 * i + 4))).tables["map_curves"]]
    total, compared = _merge(rows)
    assert compared == alone["compared"] == N
    assert total.pixel_auroc() == MapCurve.from_dict(alone).pixel_auroc()
    assert total.aupro() is not None
    np.testing.assert_allclose(total.overlap, alone["overlap"])


def test_halves_of_a_shard_are_joined(tmp_path: Path) -> None:
    folder, shard = Folder(str(tmp_path / "out")), _shard(tmp_path, 0, range(N))
    folder.write_json("attempts/00000.json", 3)
    while attempts := list_attempts("score_maps", folder, shard, lambda _: None):
        for attempt in attempts:
            attempt.run(CompareMasks(HIGH))
    done = read_finished_shard(folder, 0)
    assert done is not None
    part: Part = done.parts["map_curves"]
    assert part.rows == 2
    total, compared = _merge(part.read(folder).to_pylist())
    assert compared == N
    (alone,) = CompareMasks(HIGH)(shard).tables["map_curves"]
    assert total.pixel_auroc() == MapCurve.from_dict(alone).pixel_auroc()


def test_pixels_outside_the_region_of_interest_do_not_count(tmp_path: Path) -> None:
    """Half of each defect, and of the background, lies outside, where maps have no scores."""
    shard = _shard(tmp_path, 0, range(N))
    inside = np.arange(SIDE) < 6
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    (found,) = CompareMasks(HIGH, Roi.of_mask(mask * inside))(shard).tables["map_curves"]
    expected = MapCurve(0.0, HIGH)
    for i, row in enumerate(shard.rows_of("maps")):
        values = np.frombuffer(row["map"], row["dtype"]).reshape(SIDE, SIDE)[:, inside]
        drawn = np.zeros((SIDE, SIDE), np.uint8)
        drawn[i : i + 4, 3:9] = 255
        expected.add(values, drawn[:, inside])
    assert MapCurve.from_dict(found).pixel_auroc() == expected.pixel_auroc()
    assert MapCurve.from_dict(found).aupro() == expected.aupro()
    elsewhere = Roi.of_mask(mask * (np.arange(SIDE) > 10))
    (none,) = CompareMasks(HIGH, elsewhere)(shard).tables["map_curves"]
    assert none["components"] == 0, "a defect that is not looked at is not missed"
