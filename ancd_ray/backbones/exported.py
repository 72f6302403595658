"""Runs a frozen network as an OpenVINO graph: several times faster than eager PyTorch on a CPU, with the same results.

The graph is built once per machine and cached in the user's cache folder under the digest of its weights. On a GPU, or
if OpenVINO is not installed, the network runs in PyTorch.
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

_PIXELS = 1 << 17  # of images that a thread computes at once; activations of more leave the cache: 10 % slower

Network = Callable[[Tensor], list[Tensor]]


def export_openvino(network: nn.Module, digest: str, example_BCHW: Tensor) -> Network:
    """Compile a network as an OpenVINO graph that uses as many threads as torch.

    Parameters
    ----------
    network
        Frozen network from images (B, C, H, W) of any B, H and W to a list of tensors; in eval mode, on the CPU, in the
        memory format that is fastest without OpenVINO.
    digest
        Digest of its weights and of everything that determines the graph.
    example_BCHW
        Example input for tracing.

    Returns
    -------
    Callable
        The compiled network, or `network` itself if OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError:
        return network
    core = openvino.Core()
    compiled = compile_graph(_load_or_build_graph(core, network, digest, example_BCHW, openvino.__version__))

    n_pixels = _PIXELS * torch.get_num_threads()

    def run(images_BCHW: Tensor) -> list[Tensor]:
        n = max(1, n_pixels // (images_BCHW.shape[-2] * images_BCHW.shape[-1]))
        found = [compiled(part.contiguous().numpy(), share_inputs=True) for part in torch.split(images_BCHW, n)]
        return [torch.cat([torch.from_numpy(each[i]) for each in found]) for i in range(len(found[0]))]

    return run


def compile_graph(graph: Any) -> Any:
    """Compile an OpenVINO graph for the CPU, with as many threads as torch and the same results on every machine."""
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # no bf16 on CPUs that support it
        "ENABLE_CPU_PINNING": False,  # the workers of one machine would all be pinned to the same cores
    }
    return openvino.Core().compile_model(graph, "CPU", options)


def _load_or_build_graph(core: Any, network: nn.Module, digest: str, example_BCHW: Tensor, version: str) -> Any:
    """Load the graph from the cache, or build and cache it; without a writable cache it is not stored."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ancd-ray" / "graphs"
    name = f"{digest[:32]}-{version.partition('-')[0]}"
    kept = folder / name / "graph.xml"
    if kept.is_file():
        return core.read_model(kept)
    graph = trace(network, example_BCHW)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            import openvino

            made = Path(scratch) / "made"
            made.mkdir()
            openvino.save_model(graph, made / "graph.xml", compress_to_fp16=False)
            made.rename(folder / name)  # atomic, so that a reader never finds an incomplete graph
    except OSError:  # the cache is not writable, or another process was first
        pass
    return graph


def trace(network: nn.Module, example_BCHW: Tensor) -> Any:
    """Trace a network as an OpenVINO graph with the PyTorch frontend; `openvino.convert_model` would send telemetry."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the decoder uses torch.jit, which is deprecated
        decoder = TorchScriptPythonDecoder(network, example_input=(example_BCHW.contiguous(),))
    front_end = FrontEndManager().load_by_framework("pytorch")
    return front_end.convert(front_end.load(decoder))
