"""Graphs that anomalib exports: EfficientAD and Reverse Distillation give anomalib's own raw maps."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from ancd_ray.data.images import encode_png
from ancd_ray.detectors.graph import Graph

# The weights are random: pretrained ones would be a download, and say nothing more about the export.
EXPORT = """
import sys
import numpy as np
import torch
from anomalib.models import EfficientAd, ReverseDistillation

out = sys.argv[1]
torch.manual_seed(0)
models = {
    "efficient_ad": EfficientAd(post_processor=False),
    "reverse_distillation": ReverseDistillation(backbone="resnet18", pre_trained=False, post_processor=False),
}
images = torch.from_numpy(np.load(f"{out}/images.npy")).permute(0, 3, 1, 2) / 255
for name, model in models.items():
    model.eval()
    with torch.no_grad():
        maps = [model.model(model.pre_processor(image[None])).anomaly_map.squeeze().numpy() for image in images]
    np.save(f"{out}/{name}.npy", np.stack(maps))
models["efficient_ad"].to_onnx(out, "efficient_ad", input_size=(256, 256))
models["reverse_distillation"].to_openvino(out, "reverse_distillation", input_size=(256, 256))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, the maps that anomalib computes of them, and its models as graphs.

    anomalib has an environment of its own, which sees the packages of this one: PyTorch is not installed twice.
    """
    folder = tmp_path_factory.mktemp("anomalib")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    python = str(folder / "venv" / "bin" / "python")
    packages = ["anomalib>=2.2", "onnxscript"]
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"anomalib cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 255, (2, 256, 256, 3), np.uint8))
    ended = subprocess.run([python, "-c", EXPORT, str(folder)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("efficient_ad", "weights/onnx/efficient_ad.onnx"),  # with its weights in efficient_ad.onnx.data
        ("reverse_distillation", "weights/openvino/reverse_distillation.xml"),
    ],
)
def test_maps_are_those_of_anomalib(exported: Path, name: str, file: str) -> None:
    images, expected = np.load(exported / "images.npy"), np.load(exported / f"{name}.npy")
    config = Graph(name="graph", file=str(exported / file))
    state, _ = config.fit(lambda *_: iter(()))
    scorer = config.make_scorer(pytest.fail, {"graph.zip": state})
    found = scorer.score([{"image_bytes": encode_png(image), "uri": name} for image in images])
    assert expected.std() > 0
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-4)
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-2 * float(expected.std()))
