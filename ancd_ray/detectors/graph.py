"""Any detector that is exported as a graph: ONNX, or OpenVINO IR.

This is what anomalib's `export` writes, and what inspection lines run. OpenVINO reads graphs, and runs them on CPUs;
those in ONNX run on GPUs with onnxruntime. No training framework is needed, and nothing is unpickled. The graph becomes
a file of the detector's state, so that a model has all that it needs.

The settings are here; files are read in `graph_file.py`, inputs and outputs in `graph_signature.py`, and graphs run in
`graph_runtime.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from ancd_ray.config.base import Digest
from ancd_ray.data.roles import ListedImage
from ancd_ray.detectors.base import DetectorConfig, FitFigures, Scorer, State
from ancd_ray.detectors.calibration import CALIBRATED
from ancd_ray.detectors.tiles import TileConfig

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone
    from ancd_ray.detectors.graph_file import GraphFiles

PerChannel = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]


class Graph(DetectorConfig):
    """A detector in ONNX or OpenVINO IR; keys that are null are read from the graph or its metadata."""

    name: Literal["graph"]
    file: str  # .onnx, or .xml with its .bin beside it
    sha256: Digest | None = None  # of the graph; null: of the file as it is
    input_size: tuple[PositiveInt, PositiveInt] | None = None  # height, width
    layout: Literal["NCHW", "NHWC"] | None = None
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: PerChannel | None = None  # of pixels in 0..1, by channel; null: the graph normalizes by itself
    std: PerChannel | None = None
    output: str | None = None  # the one with the anomaly map; null: the only one that can be, or `anomaly_map`
    # Large images in overlapping tiles, each of which is resized to the input; null: every image as a whole.
    tile: TileConfig | None = None

    resources: ClassVar[Literal["images", "model"]] = "model"
    state_file: ClassVar[str | None] = "graph.zip"
    score_keys: ClassVar[tuple[str, ...]] = (
        *("input_size", "layout", "channel_order", "mean", "std", "output"),
        "tile",
    )

    @property
    def tile_size(self) -> int | None:
        """Side of its tiles, in pixels of the image."""
        return self.tile.size if self.tile else None

    @property
    def n_normals(self) -> int | None:
        """Number of normal images that are listed at most: they only calibrate its scores."""
        return CALIBRATED

    @property
    def for_fit(self) -> Graph:
        """The detector with what its state depends on: the digest of its graph."""
        return super().for_fit.for_listing

    @property
    def for_listing(self) -> Graph:
        """The detector without the place of its file, whose digest is known."""
        return self.model_copy(update={"file": ""}) if self.sha256 else self

    def pin_files(self) -> Graph:
        """Set `sha256` to the digest of the graph, so that a changed file changes fingerprints."""
        from ancd_ray.detectors.graph_file import GraphError, read_graph

        try:
            digest = self.sha256 or read_graph(self.file).digest
        except GraphError:  # which `find_problems` tells
            return self
        place = str(Path(self.file).expanduser().absolute())  # workers have other working directories
        return self.model_copy(update={"sha256": digest, "file": place})

    def find_problems(self, product: str, images: Sequence[ListedImage]) -> list[str]:  # noqa: ARG002
        """Return an error message if there is no such graph, or its input and output are unclear."""
        from ancd_ray.detectors.graph_file import GraphError
        from ancd_ray.detectors.graph_signature import read_signature

        try:
            read_signature(self._read(), self)
        except GraphError as error:
            return [str(error)]
        return []

    def fit(self, patches: Callable[[int, int], Iterator[tuple[str, NDArray[np.float16]]]]) -> tuple[bytes, FitFigures]:  # noqa: ARG002
        """Pack the files of the graph."""
        graph = self._read()
        return graph.pack(), {"graph": graph.digest}

    def make_scorer(self, backbone: Callable[[], Backbone], state: State) -> Scorer:  # noqa: ARG002
        """Build the scorer from the packed graph, which is loaded once per process."""
        from ancd_ray.detectors.graph_file import GraphFiles
        from ancd_ray.detectors.graph_runtime import GraphScorer, load_cached
        from ancd_ray.detectors.tiled_scorer import TiledScorer

        assert self.state_file, "the graph is its state"
        graph = GraphFiles.unpack(state[self.state_file])
        config = self.model_copy(update={"file": "", "sha256": None})  # the same wherever the graph came from
        scorer = GraphScorer(load_cached(graph, config), self.channel_order)
        return TiledScorer(scorer, self.tile) if self.tile else scorer

    def _read(self) -> GraphFiles:
        from ancd_ray.detectors.graph_file import GraphError, read_graph

        graph = read_graph(self.file)
        if self.sha256 not in (None, graph.digest):
            raise GraphError(
                f"detector.file: {self.file} has the digest {graph.digest[:12]}, not detector.sha256 {self.sha256[:12]}"
            )
        return graph
