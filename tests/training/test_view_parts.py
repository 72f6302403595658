"""Parts of the view bank are written batch by batch: memory does not grow with the shard, and the rows are the same."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ancd_ray.backbones.base import Encoded
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import encode_png
from ancd_ray.data.store import Folder
from ancd_ray.discovery.anomalyncd.sources import ViewBank
from ancd_ray.engine.outputs import Shard, commit_shard, write_part
from ancd_ray.stages.encode import EncodeRegions, encode_regions
from ancd_ray.stages.views import EncodeViews

REGIONS, VIEWS, TOKENS, DIM = 64, 8, 64, 256
VIEW = TOKENS * DIM * 2  # bytes of its tokens


class _Trunk:
    """A trunk whose tokens are many and depend on the view alone."""

    mean, std, view_size, color_normalization, device = (0.5,) * 3, (0.5,) * 3, 16, "own", "cpu"

    widths, tokens_ignore_mask = (DIM,), True

    def encode(self, images_BCHW: Any, masks_BHW: Any, keep_hidden: bool = False) -> Encoded:
        means_B = images_BCHW.mean(dim=(1, 2, 3))
        tokens_BND = means_B[:, None, None].expand(-1, TOKENS, DIM)
        return Encoded(tokens_BND[:, 0], tokens_BND, torch.ones(tokens_BND.shape[:2], dtype=torch.bool))


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shard:
    monkeypatch.setattr("ancd_ray.backbones.loaded.load_cached", lambda _: _Trunk())
    rng = np.random.default_rng(0)
    about = {
        "product": "p",
        "role": "query",
        "label": None,
        "x0": 0,
        "y0": 0,
        "x1": 16,
        "y1": 16,
        "area": 9,
        "score": 0.5,
    }
    rows = [
        {
            **{"region_id": f"{i:03d}-000", "image_id": f"{i:03d}", **about},
            "image": encode_png(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)),
            "mask": encode_png(np.full((16, 16), 255, np.uint8)),
        }
        for i in range(REGIONS)
    ]
    folder = Folder(str(tmp_path / "in"))
    return Shard(0, {"regions": (folder, write_part(folder, "regions", 0, rows))}, REGIONS)


def test_memory_is_that_of_a_few_batches(shard: Shard, tmp_path: Path) -> None:
    folder, worker = Folder(str(tmp_path / "out")), EncodeViews(BackboneConfig(), VIEWS)
    tracemalloc.start()
    done = commit_shard(folder, 0, worker(shard), time.perf_counter())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done.parts["views"].rows == REGIONS * VIEWS
    assert peak < 5 * 32 * VIEW < REGIONS * VIEWS * VIEW / 3
    assert done.parts["views"].find_damage(folder) is None


def test_rows_are_those_of_one_table(shard: Shard, tmp_path: Path) -> None:
    folder, worker = Folder(str(tmp_path / "out")), EncodeViews(BackboneConfig(), VIEWS)
    batches = list(worker(shard).tables["views"])
    assert [len(batch) for batch in batches] == [32] * (REGIONS * VIEWS // 32)
    streamed = write_part(folder, "views", 0, iter(batches)).read(folder)
    at_once = write_part(folder, "views", 1, [row for batch in batches for row in batch]).read(folder)
    assert streamed.equals(at_once)
    regions, draws = np.arange(REGIONS), np.stack([np.zeros(REGIONS, int), np.full(REGIONS, 7)])
    for one, other in zip(
        ViewBank([streamed]).load(regions, draws), ViewBank([at_once]).load(regions, draws), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n", [REGIONS, 33, 1])
def test_clean_views_and_features_are_those_of_all_regions_at_once(shard: Shard, tmp_path: Path, n: int) -> None:
    folder = Folder(str(tmp_path / "out"))
    regions = shard.table("regions").slice(0, n)
    some = Shard(1, {"regions": (folder, write_part(folder, "regions", 1, regions))}, n)
    work = EncodeRegions(BackboneConfig(), keep_views=True, share=0.5)(some)
    assert not work.tables["features"], "nothing is encoded yet"
    done = commit_shard(folder, 1, work, time.perf_counter())
    views, features = encode_regions(_Trunk(), regions.to_pylist(), share=0.5)  # type: ignore[arg-type]
    assert len(views) == n
    assert done.parts["clean_views"].read(folder).equals(write_part(folder, "clean_views", 2, views).read(folder))
    assert done.parts["features"].read(folder).equals(write_part(folder, "features", 2, features).read(folder))
