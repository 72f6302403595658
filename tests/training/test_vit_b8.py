"""The paper's backbone at full size with random weights: two training steps on fresh views, then classification."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ancd_ray.backbones import load
from ancd_ray.config.sections import BackboneConfig, TrainConfig
from ancd_ray.data.images import encode_png
from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Output, Shard, write_part
from ancd_ray.engine.progress import StepProgress
from ancd_ray.engine.runtime import Runtime
from ancd_ray.stages.classify import ClassifyRegions
from ancd_ray.stages.encode import EncodeRegions
from ancd_ray.stages.select_head import SelectHead
from ancd_ray.stages.train import Train

NAME = "vit_base_patch8_224"


def _regions(role: str, labels: list[str | None]) -> list[dict[str, object]]:
    rng = np.random.default_rng(len(role))
    rows: list[dict[str, object]] = []
    for i, label in enumerate(labels):
        mask = np.zeros((256, 256), np.uint8)
        cv2.circle(mask, (128, 128), 60 + 10 * i, 255, -1)
        image = rng.integers(0, 255, (256, 256, 3)).astype(np.uint8)
        rows.append(
            {
                **{"region_id": f"{role}{i}-000", "image_id": f"{role}{i}", "product": role, "role": role},
                **{"label": label, "x0": 0, "y0": 0, "x1": 256, "y1": 256, "score": 1.0},
                **{"area": int(mask.sum() // 255), "image": encode_png(image), "mask": encode_png(mask)},
            }
        )
    return rows


def _output(folder: Folder, role: str, labels: list[str | None]) -> Output:
    part = write_part(folder, "regions", 0, _regions(role, labels))
    folder.write_json("manifest.json", {"tables": {"regions": [part.__dict__]}, "values": {}, "fingerprint": role})
    found = Output.find(folder)
    assert found is not None
    return found


@pytest.mark.slow
def test_trains_two_steps_and_classifies(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    trunk = BackboneConfig(name=NAME, weights="random")
    novel = _output(root / "novel", "novel", [None, None, None])
    base = _output(root / "base", "base", ["cut", "dent"])
    config = TrainConfig.model_validate({"epochs": 1, "batch_size": 4, "start": "random", "views": {"fresh": True}})
    context = Context("train", "p", root / "train", "model", Runtime(), StepProgress("train", "p"))
    before = load(NAME, "random").make_tail().state_dict()
    stage = Train(config, trunk, Classes(("cut", "dent"), 3, has_normal=True))
    result = stage.run(context, Train.In(Table(novel, "regions"), Table(base, "regions")))
    assert np.isfinite(result.values["losses"]["total"]).all()

    manifest = {"tables": {}, "values": result.values, "files": result.files, "fingerprint": "x"}
    trained = Files(Output(root / "train", manifest), "trained")
    selecting = Context("select_head", "p", root / "select", "light", Runtime(), StepProgress("select_head", "p"))
    regions = (root / "novel", novel.parts("regions")[0])
    encoded = EncodeRegions(trunk, keep_views=True, share=1.0)(Shard(0, {"regions": regions}, 3)).tables
    views = (root / "clean", write_part(root / "clean", "clean_views", 0, encoded["clean_views"]))
    assert len(encoded["features"]) == 3  # they are there when the views are written
    features = (root / "clean", write_part(root / "clean", "features", 0, encoded["features"]))
    tables = {"clean_views": [views[1].__dict__], "features": [features[1].__dict__]}
    made = Output(root / "clean", {"tables": tables, "values": {}, "files": {}, "fingerprint": "x"})
    roles = {role: Table(made, role) for role in tables}
    SelectHead("loss", trunk).run(selecting, SelectHead.In(trained, **roles))
    worker = ClassifyRegions(trunk, 0.02, root / "select")
    rows = worker(Shard(0, {"regions": regions, "clean_views": views}, 3)).tables["region_predictions"]
    assert [row["region_id"] for row in rows] == ["novel0-000", "novel1-000", "novel2-000"]
    for row in rows:
        assert len(row["embedding"]) == 768
        assert sum(row["probs"]) == pytest.approx(1, abs=1e-5)
        assert len(row["probs"]) == 3

    from safetensors.torch import load_file

    after = load_file(tmp_path / "train" / "model.safetensors")
    moved = [name for name, value in before.items() if not torch.equal(value, after[f"tail.{name}"])]
    assert moved, "the last block has learned"
    assert not any(name.startswith("norm.") for name in moved), "the final norm is frozen"
