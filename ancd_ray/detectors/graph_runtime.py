"""Runs graphs: OpenVINO on CPUs, onnxruntime on GPUs, on images one after another.

Each image is resized to the input of the graph, whatever its aspect: exported detectors were trained that way, and the
map covers the whole image.

Shape suffixes: B images, H W pixels, C channels.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ancd_ray.config.errors import first_line
from ancd_ray.data.images import BadImage, ImageU8
from ancd_ray.data.sources import read_rgb
from ancd_ray.detectors.base import AnomalyMap, ImageRow, check_values
from ancd_ray.detectors.graph_file import GraphError, GraphFiles
from ancd_ray.detectors.graph_signature import Signature, find_signature, open_graph

if TYPE_CHECKING:
    from ancd_ray.detectors.graph import Graph

Run = Callable[[NDArray[Any]], NDArray[Any]]  # images, as the graph takes them -> its output, for each image
_ON_GPU = 8  # images per call where the batch is not fixed; on a CPU, more than one is no faster


class Network(NamedTuple):
    """A loaded graph: its input and output, how many images it takes per call, and the call."""

    signature: Signature
    batch: int
    run: Run


@lru_cache(maxsize=4)
def load_cached(graph: GraphFiles, config: Graph) -> Network:
    """Load a graph, once per process; with onnxruntime if this process has a GPU, else with OpenVINO.

    Raises
    ------
    GraphError
        It cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = graph.write(Path(folder))
        model = open_graph(path)
        signature = find_signature(model, config)
        if graph.is_onnx and (providers := find_gpu_providers()):
            return load_onnxruntime(path, signature, providers, signature.batch or _ON_GPU)
        return _load_openvino(model, signature)


def find_gpu_providers() -> list[str]:
    """Return the providers of onnxruntime for this process's GPU; none without a GPU or onnxruntime-gpu."""
    if find_spec("onnxruntime") is None:
        return []
    from ancd_ray.backbones.loaded import pick_device

    if pick_device() == "cpu":
        return []
    import onnxruntime

    return [name for name in onnxruntime.get_available_providers() if name == "CUDAExecutionProvider"]


def load_onnxruntime(path: Path, signature: Signature, providers: Sequence[str], batch: int) -> Network:
    """Load a graph in ONNX with onnxruntime."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=[*providers])
    except Exception as error:  # it has a class for each of its codes, below Exception
        raise GraphError(f"detector.file: onnxruntime cannot load {path.name}: {first_line(error)}") from error
    outputs = [session.get_outputs()[signature.output_number].name]
    kind = np.dtype(_KINDS.get(session.get_inputs()[0].type, "float32"))
    name = session.get_inputs()[0].name

    def run(images: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(session.run(outputs, {name: images.astype(kind, copy=False)})[0])

    return Network(signature, batch, run)


_KINDS = {"tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(double)": "float64"}


def _load_openvino(model: Any, signature: Signature) -> Network:
    """Compile a graph, whose input has a fixed size, for the CPU."""
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "INFERENCE_PRECISION_HINT": "f32",  # no bf16 on CPUs that support it: same results on every machine
        "ENABLE_CPU_PINNING": False,  # the workers of one machine would all be pinned to the same cores
    }
    kind = model.input(0).element_type.to_dtype()
    try:
        compiled = openvino.Core().compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise GraphError(f"detector.file: OpenVINO cannot compile the graph: {first_line(error)}") from error

    def run(images: NDArray[Any]) -> NDArray[Any]:
        found = compiled(images.astype(kind, copy=False))
        return np.asarray(found[signature.output_number])

    return Network(signature, signature.batch or 1, run)


class GraphScorer:
    """Computes maps with a loaded graph; see `base.Scorer`."""

    def __init__(self, network: Network, channel_order: Literal["rgb", "bgr"]) -> None:
        self._network, self._channel_order = network, channel_order

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute maps at the resolution of the graph."""
        found: list[AnomalyMap | BadImage] = []
        for start in range(0, len(images), self._network.batch):
            found += self._score(images[start : start + self._network.batch])
        return found

    def _score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Score at most as many images as the graph takes; one that is missing is made up for by the last."""
        results: dict[int, AnomalyMap | BadImage] = {}
        prepared = {}
        for i, image in enumerate(images):
            try:
                prepared[i] = prepare(read_rgb(image), self._network.signature, self._channel_order)
            except BadImage as error:
                results[i] = error
        if prepared:
            inputs = [*prepared.values()]
            inputs += inputs[-1:] * (self._network.batch - len(inputs))
            for i, values in zip(prepared, self._network.run(np.stack(inputs)), strict=False):  # the rest fills up
                results[i] = _make_map(values)
        return [results[i] for i in range(len(images))]


def prepare(rgb: ImageU8, signature: Signature, channel_order: Literal["rgb", "bgr"]) -> NDArray[Any]:
    """Prepare an image (H, W, 3): resized, normalized, with the channels of the graph; (C, H, W) or (H, W, C)."""
    size = (signature.width, signature.height)
    shrinks = rgb.shape[0] > signature.height or rgb.shape[1] > signature.width
    values = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if signature.channels == 1:
        values = cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)[..., None]
    elif channel_order == "bgr":
        values = values[..., ::-1]
    if not signature.is_integer:
        mean, std = (np.asarray(each, np.float32) for each in (signature.mean, signature.std))
        values = (values.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1) if signature.is_nchw else values)


def _make_map(values: NDArray[Any]) -> AnomalyMap | BadImage:
    """Return the map (H, W) of an image, of what the graph computed."""
    while values.ndim > 2 and 1 in values.shape:
        values = values.squeeze(values.shape.index(1))
    if values.ndim != 2:
        return BadImage(f"the output of the graph is {' x '.join(map(str, values.shape))}, not one number per pixel")
    try:
        return check_values(values.astype(np.float32))
    except BadImage as error:
        return error
