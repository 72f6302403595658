"""A frozen network as an OpenVINO graph: on a CPU several times faster than eager PyTorch, with the same numbers.

The graph is built once a machine and kept in the user's cache under the digest of its weights. On a GPU, or where there
is no OpenVINO, the network runs as it is.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], list[Tensor]]


def export_openvino(network: nn.Module, digest: str, example_BCHW: Tensor) -> Network:
    """The network (images (B, C, H, W) of any B, H and W to a list of tensors) as a graph, on as many threads as torch.

    Args:
        network: frozen, in eval mode, on the CPU, in the memory format that runs best without OpenVINO.
        digest: of its weights and of all that shapes the graph.
        example_BCHW: an input that the network is traced with.
    """
    try:
        import openvino
    except ImportError:
        return network
    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # not bf16 where the processor has it: the same numbers on every machine
        "ENABLE_CPU_PINNING": False,  # the workers of one machine would all choose the same cores
    }
    compiled = core.compile_model(
        _load_or_build_graph(core, network, digest, example_BCHW, openvino.__version__), "CPU", options
    )

    def run(images_BCHW: Tensor) -> list[Tensor]:
        found = compiled(images_BCHW.contiguous().numpy(), share_inputs=True)
        return [torch.from_numpy(found[i]) for i in range(len(found))]

    return run


def _load_or_build_graph(core: Any, network: nn.Module, digest: str, example_BCHW: Tensor, version: str) -> Any:
    """The graph from the cache, where it is put first if need be; without a writable cache it is built every time."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ancd-ray" / "graphs"
    name = f"{digest[:32]}-{version.partition('-')[0]}"
    kept = folder / name / "graph.xml"
    if kept.is_file():
        return core.read_model(kept)
    graph = _trace(network, example_BCHW)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            import openvino

            made = Path(scratch) / "made"
            made.mkdir()
            openvino.save_model(graph, made / "graph.xml", compress_to_fp16=False)
            made.rename(folder / name)  # a whole folder at once, so that a reader never finds half a graph
    except OSError:  # no such place, or another process was first
        pass
    return graph


def _trace(network: nn.Module, example_BCHW: Tensor) -> Any:
    """Straight through the front end: `openvino.convert_model` would report its use to its makers."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it traces with torch.jit, which torch advises against
        decoder = TorchScriptPythonDecoder(network, example_input=(example_BCHW.contiguous(),))
    front_end = FrontEndManager().load_by_framework("pytorch")
    return front_end.convert(front_end.load(decoder))
