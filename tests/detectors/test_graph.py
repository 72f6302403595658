"""Graphs compute what the networks that they were exported from do; what is no usable graph is refused in a line."""

from __future__ import annotations

import io
import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import openvino
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ancd_ray.data.images import BadImage, encode_png
from ancd_ray.detectors import graph_file
from ancd_ray.detectors.graph import Graph
from ancd_ray.detectors.graph_file import GraphError, GraphFiles, read_graph
from ancd_ray.detectors.graph_runtime import GraphScorer, load_onnxruntime
from ancd_ray.detectors.graph_signature import read_signature
from ancd_ray.detectors.tiles import TileConfig

SIDE = 32
Row = dict[str, Any]


class StudentTeacher(nn.Module):
    """A student that imitates a teacher (reverse distillation, EfficientAD): the map alone."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        distance = (self.teacher(x) - self.student(x)).pow(2).mean(dim=1, keepdim=True)
        return F.interpolate(distance, size=x.shape[-2:], mode="bilinear")


class FeatureDistance(nn.Module):
    """Distances to features of normal images (PatchCore): score and map, the map without a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 4, 4)
        self.bank_MD = nn.Parameter(torch.randn(20, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.features(x)
        distances = torch.cdist(found.flatten(2).transpose(1, 2), self.bank_MD[None].expand(x.shape[0], -1, -1))
        grid = distances.amin(dim=2).unflatten(1, found.shape[-2:])
        return grid.amax(dim=(1, 2)), grid


class Channels(nn.Module):
    """A weighted sum of the channels, which are last if there are as many there."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() if x.shape[-1] > 3 else x.float().permute(0, 3, 1, 2)
        return (x * torch.tensor([1.0, 10.0, 100.0])[: x.shape[1], None, None]).sum(dim=1)


class Several(nn.Module):
    """Three outputs that may be the map, and features, which are none."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.mean(dim=1), x.amax(dim=1, keepdim=True), x.repeat(1, 2, 1, 1)


def export(
    model: nn.Module,
    path: Path,
    shape: Sequence[int] = (1, 3, SIDE, SIDE),
    outputs: Sequence[str] = ("map",),
    dynamic: Sequence[int] = (),
    properties: dict[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Export a network as ONNX, or, with the suffix .xml, as OpenVINO IR."""
    example = (torch.rand(*shape) * 9).to(dtype)
    file = path.with_suffix(".onnx")
    axes = {"image": {axis: f"axis{axis}" for axis in dynamic}} if dynamic else None
    names = {"input_names": ["image"], "output_names": [*outputs]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter with torch.export takes ten times as long, and onnxscript
        torch.onnx.export(model.eval(), (example,), file, dynamic_axes=axes, dynamo=False, **names)
    if properties:
        stored = onnx.load(file)
        onnx.helper.set_model_props(stored, properties)
        onnx.save(stored, file)
    if path.suffix == ".xml":
        openvino.save_model(openvino.Core().read_model(file), path, compress_to_fp16=False)
    return path


def make_rows(n: int, side: int = SIDE) -> list[Row]:
    rng = np.random.default_rng(0)
    return [
        {"image_bytes": encode_png(rng.integers(0, 255, (side, side, 3), np.uint8)), "uri": str(i)} for i in range(n)
    ]


def pixels(row: Row) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(row["image_bytes"], np.uint8), cv2.IMREAD_COLOR_RGB))


def make_scorer(config: Graph) -> Any:
    state, _ = config.fit(lambda *_: iter(()))
    return config.make_scorer(pytest.fail, {"graph.zip": state})


def compute(config: Graph, rows: Sequence[Row]) -> list[NDArray[Any]]:
    maps = make_scorer(config).score(rows)
    assert not any(isinstance(each, BadImage) for each in maps), maps
    return list(maps)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize(("batch", "dynamic"), [(1, ()), (2, ()), (2, (0,)), (1, (0, 2, 3))])
@pytest.mark.parametrize(("network", "outputs"), [(StudentTeacher, ["map"]), (FeatureDistance, ["score", "map"])])
def test_maps_are_those_of_the_network(
    tmp_path: Path, suffix: str, batch: int, dynamic: Sequence[int], network: type[nn.Module], outputs: Sequence[str]
) -> None:
    torch.manual_seed(0)
    model = network().eval()
    path = export(model, tmp_path / f"graph{suffix}", (batch, 3, SIDE, SIDE), outputs, dynamic)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    size = (SIDE, SIDE) if 2 in dynamic else None
    rows = make_rows(3)
    broken = {**rows[0], "image_bytes": b"no image"}
    found = make_scorer(Graph(name="graph", file=str(path), input_size=size, mean=mean, std=std)).score(
        [rows[0], broken, *rows[1:]]
    )
    assert isinstance(found.pop(1), BadImage)
    for row, values in zip(rows, found, strict=True):
        image = (torch.from_numpy(pixels(row)) / 255 - torch.tensor(mean)) / torch.tensor(std)
        with torch.no_grad():
            expected = model(image.permute(2, 0, 1)[None])
        expected = (expected[1] if isinstance(expected, tuple) else expected).squeeze().numpy()
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_onnxruntime_computes_the_same(tmp_path: Path) -> None:
    """On this machine's CPU; a GPU differs in the provider alone."""
    path = export(FeatureDistance(), tmp_path / "graph.onnx", (2, 3, SIDE, SIDE), ["score", "map"], (0,))
    config = Graph(name="graph", file=str(path))
    signature = read_signature(read_graph(str(path)), config)
    network = load_onnxruntime(path, signature, ["CPUExecutionProvider"], batch=2)
    rows = make_rows(3)
    for one, other in zip(GraphScorer(network, "rgb").score(rows), compute(config, rows), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "dtype", "keys", "properties"),
    [
        ((1, 3, 8, 8), torch.float32, {"mean": (0.1, 0.2, 0.3), "std": (2, 4, 5)}, {}),
        ((1, 8, 8, 3), torch.float32, {}, {"mean": "[0.1, 0.2, 0.3]", "std": "2 4 5"}),
        ((1, 3, 8, 8), torch.float32, {"channel_order": "bgr"}, {}),
        ((1, 1, 8, 8), torch.float32, {"mean": (0.5,)}, {}),
        ((1, 8, 8, 3), torch.uint8, {}, {}),
    ],
)
def test_pixels_are_what_the_graph_asks_for(
    tmp_path: Path, shape: Sequence[int], dtype: torch.dtype, keys: dict[str, Any], properties: dict[str, str]
) -> None:
    path = export(Channels(), tmp_path / "graph.onnx", shape, properties=properties, dtype=dtype)
    (row,) = make_rows(1, side=8)
    (found,) = compute(Graph(name="graph", file=str(path), **keys), [row])
    image = pixels(row).astype(np.float64)
    if 1 in shape[1:]:
        image = cv2.cvtColor(pixels(row), cv2.COLOR_RGB2GRAY)[..., None].astype(np.float64)
    if dtype != torch.uint8:
        image /= 255
    if keys.get("channel_order") == "bgr":
        image = image[..., ::-1]
    normalizes = bool(properties or keys.get("std"))
    mean = np.array([0.1, 0.2, 0.3]) if normalizes else np.array(keys.get("mean", 0.0))
    expected = (image - mean) / (np.array([2, 4, 5]) if normalizes else 1.0)
    np.testing.assert_allclose(found, (expected * [1, 10, 100][: image.shape[2]]).sum(axis=2), rtol=1e-5)


def test_metadata_of_either_form_is_read(tmp_path: Path) -> None:
    properties = {"input_size": "[16, 24]", "output": "b", "mean": "0.25"}
    for name in ("graph.onnx", "graph.xml"):
        path = export(Several(), tmp_path / name, outputs="abc", dynamic=(0, 2, 3), properties=properties)
        found = read_signature(read_graph(str(path)), Graph(name="graph", file=str(path)))
        assert (found.height, found.width, found.output, found.mean) == (16, 24, "b", (0.25,))
        declared = Graph(name="graph", file=str(path), input_size=(8, 8), output="a", mean=(0.5,))
        found = read_signature(read_graph(str(path)), declared)
        assert (found.height, found.output, found.mean) == (8, "a", (0.5,))
    model = openvino.Core().read_model(export(StudentTeacher(), tmp_path / "plain.onnx"))
    model.set_rt_info("123.675 116.28 103.53", ["model_info", "mean_values"])
    model.set_rt_info("58.395 57.12 57.375", ["model_info", "scale_values"])
    openvino.save_model(model, tmp_path / "of_model_api.xml")
    file = str(tmp_path / "of_model_api.xml")
    found = read_signature(read_graph(file), Graph(name="graph", file=file))
    np.testing.assert_allclose([found.mean, found.std], [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], rtol=1e-6)


def test_an_image_of_any_size_fills_the_graph(tmp_path: Path) -> None:
    path = export(StudentTeacher(), tmp_path / "graph.onnx")
    tall = np.zeros((90, 40, 3), np.uint8)
    tall[45:] = 255
    (found,) = compute(Graph(name="graph", file=str(path)), [{"image_bytes": encode_png(tall), "uri": "tall"}])
    assert found.shape == (SIDE, SIDE)
    whole = cv2.resize(tall, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    (expected,) = compute(Graph(name="graph", file=str(path)), [{"image_bytes": encode_png(whole), "uri": "whole"}])
    np.testing.assert_array_equal(found, expected)


def test_a_large_image_is_scored_in_tiles(tmp_path: Path) -> None:
    """Tiles of the size of the graph's input are not resized: a smooth image is blended back together."""
    side = 64  # the smallest tile
    path = export(Channels(), tmp_path / "graph.onnx", (1, 3, side, side))
    y, x = np.indices((100, 150))
    large = np.repeat((x + y).astype(np.uint8)[..., None], 3, axis=2)
    config = Graph(name="graph", file=str(path), tile=TileConfig(size=side, overlap=16))
    (found,) = compute(config, [{"image_bytes": encode_png(large), "uri": "large"}])
    np.testing.assert_allclose(found, large[..., 0] * (111 / 255), rtol=1e-3, atol=1e-2)
    assert config.tile_size == side


def test_weights_beside_the_graph_are_part_of_it(tmp_path: Path) -> None:
    """Exporters of PyTorch write weights to a file of their own; a model has both."""
    path = export(StudentTeacher(), tmp_path / "graph.onnx")
    rows = make_rows(1)
    (expected,) = compute(Graph(name="graph", file=str(path)), rows)
    before = read_graph(str(path)).digest
    external = {"save_as_external_data": True, "location": "graph.onnx.data", "size_threshold": 0}
    onnx.save(onnx.load(path), path, **external)
    assert path.with_name("graph.onnx.data").stat().st_size > 1000
    scorer = make_scorer(Graph(name="graph", file=str(path)))
    assert read_graph(str(path)).digest != before
    path.unlink()
    path.with_name("graph.onnx.data").unlink()
    np.testing.assert_allclose(scorer.score(rows)[0], expected, atol=1e-6)


def test_the_state_is_the_graph(tmp_path: Path) -> None:
    path = export(StudentTeacher(), tmp_path / "graph.xml")
    graph = read_graph(str(path))
    assert graph.pack() == graph.pack()
    assert GraphFiles.unpack(graph.pack()) == graph
    assert list(graph.files) == ["graph.xml", "graph.bin"]
    with pytest.raises(GraphError, match="damaged"):
        GraphFiles.unpack(graph.pack()[:100])
    config = Graph(name="graph", file=str(path))
    assert config.pin_files().sha256 == graph.digest
    renamed = config.model_copy(update={"output": "other"})
    assert config.for_fit == renamed.for_fit, "what the graph is asked for does not change its state"
    assert json.loads(config.model_dump_json())["file"] == str(path)


def test_values_that_are_not_finite_are_a_reason(tmp_path: Path) -> None:
    class Divides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x / x).mean(dim=1)  # 0 / 0 on black pixels

    path = export(Divides(), tmp_path / "graph.onnx")
    black = {"image_bytes": encode_png(np.zeros((SIDE, SIDE, 3), np.uint8)), "uri": "black"}
    white = {"image_bytes": encode_png(np.full((SIDE, SIDE, 3), 255, np.uint8)), "uri": "white"}
    bad, good = make_scorer(Graph(name="graph", file=str(path))).score([black, white])
    assert isinstance(bad, BadImage)
    assert "not finite" in str(bad)
    assert (good == 1).all()


def _save_checkpoint(folder: Path) -> Graph:
    torch.save(StudentTeacher().state_dict(), folder / "model.ckpt")
    return Graph(name="graph", file=str(folder / "model.ckpt"))


def _save_pickle_under_another_name(folder: Path) -> Graph:
    buffer = io.BytesIO()
    torch.save({"a": 1}, buffer, _use_new_zipfile_serialization=False)
    (folder / "model.onnx").write_bytes(buffer.getvalue())
    return Graph(name="graph", file=str(folder / "model.onnx"))


def _write(folder: Path, name: str, data: bytes) -> Graph:
    (folder / name).write_bytes(data)
    return Graph(name="graph", file=str(folder / name))


def _export(folder: Path, model: nn.Module, keys: dict[str, Any], **options: Any) -> Graph:
    return Graph(name="graph", file=str(export(model, folder / "graph.onnx", **options)), **keys)


class Two(nn.Module):
    """A network of two images."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, :3] - x[:, 3:]).mean(dim=1)


BAD: dict[str, tuple[Callable[[Path], Graph], str]] = {
    "missing": (lambda at: Graph(name="graph", file=str(at / "none.onnx")), r"none\.onnx: no such file"),
    "checkpoint": (_save_checkpoint, "is a pickle or a checkpoint of PyTorch"),
    "pickle": (_save_pickle_under_another_name, "is a pickle or a checkpoint of PyTorch"),
    "text": (lambda at: _write(at, "a.onnx", b"not a graph"), r"neither ONNX \(\.onnx\) nor OpenVINO IR"),
    "damaged": (lambda at: _write(at, "a.onnx", b"\x08\x07" + b"garbage" * 9), "cannot be read"),
    "no weights": (lambda at: _write(at, "a.xml", b"<?xml version='1.0'?><net/>"), r"a\.bin: no such file"),
    "damaged IR": (lambda at: [_write(at, n, b"<net/>") for n in ("a.bin", "a.xml")][1], "cannot be read"),
    "two maps": (
        lambda at: _export(at, Several(), {}, outputs="abc"),
        r"the graph has several outputs that can be the anomaly map; name one of a \(1 x 32 x 32\), b",
    ),
    "no such output": (
        lambda at: _export(at, Several(), {"output": "x"}, outputs="abc"),
        r"detector\.output x: the out",
    ),
    "features": (lambda at: _export(at, Several(), {"output": "c"}, outputs="abc"), r"detector\.output c: is no map"),
    "no map": (lambda at: _export(at, nn.Conv2d(3, 8, 3), {}), "no output that can be"),
    "other size": (
        lambda at: _export(at, StudentTeacher(), {"input_size": (64, 64)}),
        r"detector\.input_size \[64, 64\]: the graph takes 32 x 32",
    ),
    "no size": (
        lambda at: _export(at, StudentTeacher(), {}, dynamic=(0, 2, 3)),
        r"detector\.input_size: give \[height",
    ),
    "impossible size": (
        lambda at: _export(at, nn.Conv2d(3, 1, 40), {"input_size": (8, 8)}, shape=(1, 3, 64, 64), dynamic=(2, 3)),
        r"detector\.input_size: the graph cannot take 8 x 8",
    ),
    "other channels": (lambda at: _export(at, Two(), {}, shape=(1, 6, 8, 8)), r"detector\.layout: give NCHW or NHWC"),
    "either layout": (lambda at: _export(at, StudentTeacher(), {}, shape=(1, 3, 8, 3)), r"detector\.layout: give NCHW"),
    "other layout": (lambda at: _export(at, StudentTeacher(), {"layout": "NHWC"}), r"detector\.layout NHWC: the input"),
    "too many means": (lambda at: _export(at, StudentTeacher(), {"mean": (0, 0)}), r"detector\.mean: has 2 values"),
    "no deviation": (lambda at: _export(at, StudentTeacher(), {"std": (0, 1, 1)}), r"detector\.std: must be above 0"),
    "other graph": (
        lambda at: _export(at, StudentTeacher(), {"sha256": "0" * 64}),
        r"not detector\.sha256 000000000000",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_usable_graph_is_said_in_a_line(tmp_path: Path, case: str) -> None:
    make, said = BAD[case]
    config = make(tmp_path)
    assert config.pin_files() == config.model_copy(update={"sha256": config.pin_files().sha256}), "it tells nothing"
    (problem,) = config.find_problems("tile", [])
    assert re.search(said, problem), problem
    assert "\n" not in problem


def test_a_large_graph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_file, "MAX_BYTES", 1000)
    config = _export(tmp_path, StudentTeacher(), {})
    (problem,) = config.find_problems("tile", [])
    assert "a graph has 1,000 at most" in problem


def test_without_openvino_the_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _export(tmp_path, StudentTeacher(), {})
    monkeypatch.setitem(sys.modules, "openvino", None)
    (problem,) = config.find_problems("tile", [])
    assert "pip install openvino" in problem
