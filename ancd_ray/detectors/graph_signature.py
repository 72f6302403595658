"""Input and output of a graph: size, layout, normalization, and which output is the anomaly map.

What the job does not say is read from the graph, then from its metadata: the properties `input_size`, `layout`, `mean`,
`std`, `output` of an ONNX file, or `mean_values` and `scale_values` (of pixels in 0..255) that the Model API of
OpenVINO keeps in IR.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ancd_ray.config.errors import first_line
from ancd_ray.detectors.graph_file import GraphError, GraphFiles

if TYPE_CHECKING:
    from ancd_ray.detectors.graph import Graph

ANOMALY_MAP = "anomaly_map"  # the name that anomalib gives it
_PROPERTIES, _MODEL_API = "framework", "model_info"  # where OpenVINO keeps metadata
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Signature:
    """Input and output of a graph.

    Parameters
    ----------
    input, output
        Their names; of an output without a name its number.
    output_number
        Number of the output with the anomaly map.
    batch
        Images per call, if it is fixed.
    height, width, channels
        Size of the input.
    is_nchw
        Whether channels come before rows.
    is_integer
        Whether pixels are integers in 0..255.
    mean, std
        Normalization of pixels in 0..1.
    """

    input: str
    output: str
    output_number: int
    batch: int | None
    height: int
    width: int
    channels: int
    is_nchw: bool
    is_integer: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """Return the shape of the input."""
        image = (self.height, self.width)
        return (batch, self.channels, *image) if self.is_nchw else (batch, *image, self.channels)


def open_graph(path: Path) -> Any:
    """Open a graph with OpenVINO.

    Raises
    ------
    GraphError
        OpenVINO is not installed, or cannot read the file.
    """
    try:
        import openvino
    except ImportError as error:
        raise GraphError("detector.name graph: needs OpenVINO; python -m pip install openvino") from error
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        raise GraphError(f"detector.file: {path.name} cannot be read: {_explain(error)}") from error


@lru_cache(maxsize=4)
def read_signature(graph: GraphFiles, config: Graph) -> Signature:
    """Read input and output of a graph.

    Raises
    ------
    GraphError
        They do not fit the job, or the job must name more of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        return find_signature(open_graph(graph.write(Path(folder))), config)


def find_signature(model: Any, config: Graph) -> Signature:
    """Find input and output of an opened graph, whose input gets a fixed size; see `read_signature`."""
    if len(model.inputs) != 1:
        raise GraphError(f"detector.file: the graph has {len(model.inputs)} inputs, not one: {_list(model.inputs)}")
    (port,) = model.inputs
    shape = [None if side.is_dynamic else side.get_length() for side in port.partial_shape] if _has_rank(port) else []
    is_nchw = _find_layout(shape, config.layout or _read_text(model, "layout"))
    batch = shape[0]
    channels, height, width = (shape[i] for i in ((1, 2, 3) if is_nchw else (3, 1, 2)))
    height, width = _find_size((height, width), config, _read_numbers(model, _PROPERTIES, "input_size"))
    channels = channels or 3
    mean, std = _find_normalization(model, config, channels)
    name = port.get_any_name() if port.get_names() else "input"
    is_integer = port.element_type.is_integral()
    if is_integer and (any(mean) or set(std) != {1.0}):
        raise GraphError("detector.mean, detector.std: the graph takes integers, which it normalizes by itself")
    fixed = Signature(name, "", 0, batch, height, width, channels, is_nchw, is_integer, mean, std)
    try:
        model.reshape({port: list(fixed.shape(batch or 1))})
    except RuntimeError as error:
        raise GraphError(f"detector.input_size: the graph cannot take {height} x {width}: {_explain(error)}") from error
    number, output = _find_output(model.outputs, config.output or _read_text(model, "output"))
    return Signature(name, output, number, batch, height, width, channels, is_nchw, is_integer, mean, std)


def _find_layout(shape: Sequence[int | None], declared: str | None) -> bool:
    """Tell whether channels come before rows."""
    shown = " x ".join("?" if side is None else str(side) for side in shape) or "?"
    if len(shape) != 4:
        raise GraphError(f"detector.file: the input of the graph is {shown}, not a batch of images (4 dimensions)")
    fits = {"NCHW": shape[1] in (None, *_CHANNELS), "NHWC": shape[3] in (None, *_CHANNELS)}
    certain = {"NCHW": shape[1] in _CHANNELS, "NHWC": shape[3] in _CHANNELS}
    if declared is not None:
        if not fits.get(declared):
            raise GraphError(f"detector.layout {declared}: the input of the graph is {shown}")
        return declared == "NCHW"
    likely = certain if any(certain.values()) else fits
    if all(certain.values()) or not any(likely.values()):
        raise GraphError(f"detector.layout: give NCHW or NHWC; the input of the graph is {shown}")
    return likely["NCHW"]  # if nothing is fixed, as PyTorch has it


def _find_size(fixed: tuple[int | None, int | None], config: Graph, stored: Sequence[float]) -> tuple[int, int]:
    named: Sequence[int | None] = config.input_size or [int(side) for side in stored]
    height, width = (own or wish for own, wish in zip(fixed, named if len(named) == 2 else (None, None), strict=True))
    if height is None or width is None:
        raise GraphError("detector.input_size: give [height, width]; the graph takes any size and does not name one")
    if config.input_size not in (None, (height, width)):
        raise GraphError(
            f"detector.input_size {list(config.input_size)}: the graph takes {height} x {width} (height x width)"
        )
    return height, width


def _find_normalization(model: Any, config: Graph, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Find mean and standard deviation of pixels in 0..1."""
    found = []
    for key, declared, of_model_api in (("mean", config.mean, "mean_values"), ("std", config.std, "scale_values")):
        values = [*(declared or ())] or _read_numbers(model, _PROPERTIES, key)
        values = values or [value / 255 for value in _read_numbers(model, _MODEL_API, of_model_api)]
        values = values or [float(key == "std")]
        if len(values) not in (1, channels):
            raise GraphError(f"detector.{key}: has {len(values)} values, the input of the graph {channels} channels")
        if key == "std" and min(values) <= 0:
            raise GraphError(f"detector.std: must be above 0, and is {values}")
        found.append(tuple(values))
    return found[0], found[1]


def _find_output(outputs: Sequence[Any], declared: str | None) -> tuple[int, str]:
    """Find the output with the anomaly map: the named one, `anomaly_map`, or the only one of that form."""
    names = [_name(port, number) for number, port in enumerate(outputs)]
    if declared is not None:
        chosen = [n for n, port in enumerate(outputs) if declared in port.get_names() or declared == names[n]]
        if not chosen:
            raise GraphError(f"detector.output {declared}: the outputs of the graph are {_list(outputs)}")
        if not _can_be_map(outputs[chosen[0]]):
            raise GraphError(f"detector.output {declared}: is no map with one number per pixel: {_list(outputs)}")
        return chosen[0], names[chosen[0]]
    maps = [n for n, port in enumerate(outputs) if _can_be_map(port) and port.element_type.is_real()]
    named = [n for n in maps if ANOMALY_MAP in outputs[n].get_names()]
    chosen = named or maps
    if len(chosen) != 1:
        what = "several outputs that can be" if chosen else "no output that can be"
        raise GraphError(f"detector.output: the graph has {what} the anomaly map; name one of {_list(outputs)}")
    return chosen[0], names[chosen[0]]


def _can_be_map(port: Any) -> bool:
    """Whether an output may have one number per pixel: (B, H, W), (B, 1, H, W) or (B, H, W, 1), H and W above 1."""
    if not _has_rank(port):
        return True
    sides = [None if side.is_dynamic else side.get_length() for side in port.partial_shape][1:]
    return len(sides) in (2, 3) and (sum(side != 1 for side in sides) == 2 or sides.count(None) > 2)


def _has_rank(port: Any) -> bool:
    return bool(port.partial_shape.rank.is_static)


def _name(port: Any, number: int) -> str:
    return str(port.get_any_name()) if port.get_names() else str(number)


def _list(ports: Sequence[Any]) -> str:
    shapes = [str(port.partial_shape).strip("[]").replace(",", " x ") for port in ports]
    return ", ".join(f"{_name(port, n)} ({shape})" for n, (port, shape) in enumerate(zip(ports, shapes, strict=True)))


def _read_text(model: Any, key: str, section: str = _PROPERTIES) -> str | None:
    path = [section, key]
    if not model.has_rt_info(path):
        return None
    found = model.get_rt_info(path)
    return str(getattr(found, "value", found)).strip() or None


def _read_numbers(model: Any, section: str, key: str) -> list[float]:
    return [float(each) for each in re.findall(r"-?\d+\.?\d*(?:[eE][-+]?\d+)?", _read_text(model, key, section) or "")]


def _explain(error: Exception) -> str:
    """Return the line of a message of OpenVINO that says what is wrong; the others name its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '", "While validating"))]
    return told[0] if told else first_line(error)
