"""Jobs with a detector that is not ours: as a graph, which becomes part of the model, and as maps in a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np
import openvino
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancd_ray.backbones.exported import trace
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.jobs.plan import make
from ancd_ray.models.find import find_model
from ancd_ray.models.model import Model
from tests.conftest import Ran

WARD = ("data.base=null", "discovery.method=ward", "classes.novel=3")


class Contrast(nn.Module):
    """Local contrast, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        gray = x.mean(dim=1, keepdim=True)
        smooth = F.avg_pool2d(gray, 15, stride=1, padding=7, count_include_pad=False)
        return F.avg_pool2d((gray - smooth).abs(), 5, stride=1, padding=2) * self.factor


def _export(path: Path, factor: float = 1.0) -> None:
    openvino.save_model(trace(Contrast(factor), torch.zeros(1, 3, 64, 64)), path, compress_to_fp16=False)


@pytest.mark.slow
def test_a_graph_is_part_of_the_model(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], tmp_path: Path
) -> None:
    graph = tmp_path / "contrast.xml"
    _export(graph)
    settings = f"{{name: graph, file: {graph}, input_size: [64, 64]}}"
    job = small_job(tmp_path / "out", f"detector={settings}", *WARD)
    run = run_job(job)
    assert run.summary["quarantined"] == 0
    assert run_job(job).computed == set()
    before = {step.name: step.fingerprint for step in make(job).products[0].flow.steps}
    other_size = small_job(tmp_path / "out", f"detector={settings}", "detector.input_size=[32, 32]", *WARD)
    _assert_changed(before, other_size, kept={"catalog", "fit_detector"})
    moved = graph.with_name("moved.xml")
    for old, new in ((graph, moved), (graph.with_suffix(".bin"), moved.with_suffix(".bin"))):
        new.write_bytes(old.read_bytes())
    elsewhere = small_job(tmp_path / "out", f"detector={settings}", f"detector.file={moved}", *WARD)
    _assert_changed(before, elsewhere, before.keys())
    _export(graph, factor=2.0)
    _assert_changed(before, job, kept={"catalog"})

    model = find_model(str(run.folder.path), None)
    graph.unlink()
    graph.with_suffix(".bin").unlink()
    with pytest.raises(JobError, match=r"detector\.file: .*contrast\.\w+: no such file"):
        make(job)
    predicted = pq.read_table(str(run.folder.path / "image_predictions"), columns=["uri", "cls"]).to_pylist()[:5]
    found = Model.load(model).predict([row["uri"] for row in predicted])
    assert found.quarantine.num_rows == 0
    assert {row["uri"]: row["cls"] for row in found.image_predictions.to_pylist()} == {
        row["uri"]: row["cls"] for row in predicted
    }


def _assert_changed(before: dict[str, str], job: Job, kept: Collection[str]) -> None:
    after = {step.name: step.fingerprint for step in make(job).products[0].flow.steps}
    assert {name for name in after if after[name] == before[name]} == set(kept)


def test_maps_in_a_parquet_file(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], demo_root: Path, tmp_path: Path
) -> None:
    names = sorted(path.relative_to(demo_root / "tile") for path in (demo_root / "tile").glob("test/*/*.png"))
    maps = []
    for name in names:
        values = np.random.default_rng(len(maps)).uniform(0.9, 1, (32, 32)).astype(np.float32)
        mask = demo_root / "tile" / "ground_truth" / name.parent.name / f"{name.stem}_mask.png"
        if mask.exists():
            drawn = cv2.resize(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE), (32, 32), interpolation=cv2.INTER_AREA)
            values[drawn > 0] = 0  # the wrong way around
        maps.append(values)
    maps[1] = np.full((32, 32), np.nan, np.float32)
    columns = {"path": [str(name) for name in names], "map": [values.tobytes() for values in maps]}
    sizes = {"dtype": ["float32"] * len(maps), "height": [32] * len(maps), "width": [32] * len(maps)}
    table = tmp_path / "maps.parquet"
    pq.write_table(pa.table({**columns, **sizes}).slice(1), table, row_group_size=4)
    settings = ("detector={name: precomputed}", f"data.products.0.maps={table}", *WARD)
    job = small_job(tmp_path / "out", *settings)
    told = "\n".join(make(job).describe_inputs())
    assert f"1 of 25 images to classify have no anomaly map and go to quarantine; expected: {tmp_path}" in told
    assert "detector.anomalous: low" in told
    assert "maps of 32 x 32 px are resized to their images of 128 x 128" in told
    run = run_job(small_job(tmp_path / "out", *settings, "detector.anomalous=low"))
    assert run.summary["quarantined"] == 2
    reasons = {row["reason"] for row in pq.read_table(str(run.folder.path / "quarantine")).to_pylist()}
    assert any("it has no anomaly map" in reason for reason in reasons)
    assert any(f"its map {table}#row=0: the anomaly map has values that are not finite" in reason for reason in reasons)
