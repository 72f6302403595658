"""Fit detector: fits a detector to normal images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import BadImage
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.sources import attach_range
from ancd_ray.detectors.base import FittedDetector
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, StageError, quarantine_row
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage


@dataclass(frozen=True)
class FitDetector(Stage):
    """Fits the state of a detector, such as a memory bank."""

    name: ClassVar[str] = "fit_detector"
    version: ClassVar[int] = 3
    resources: ClassVar[Resources] = "model"

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table

    class Out:
        """Artifacts that the stage makes, by role."""

        detector_state: Files

    detector: FittedDetector
    backbone: BackboneConfig

    def run(self, context: Context, inputs: In) -> Work:
        """Collect features of the normal images and fit the detector.

        Raises
        ------
        StageError
            The product has no usable normal image.
        """
        normals = inputs.images.read(["role"]).column("role").to_pylist().count("normal")
        if not normals:
            raise StageError(
                f"product {context.product} has no usable normal image, which {self.detector.name} learns from; "
                "give it some (train/good, `normals:`) or choose another detector.name"
            )
        worker = CollectPatches(self.detector, self.backbone, normals, PixelRange.find(inputs.images.values))
        done = yield from context.map(worker, align_shards({"images": inputs.images}))
        result = Result.of_shards(done)
        context.progress.note("fitting")
        state, values = self.detector.fit(lambda size: _read_patches(context, result, size))
        context.folder.write(self.detector.state_file, state)
        files = {self.detector.state_file: hashlib.sha256(state).hexdigest()}
        return Result(result.tables, {"normals": normals, **values}, files)


def _read_patches(context: Context, result: Result, size: int) -> Iterator[tuple[str, NDArray[np.float16]]]:
    for part in result.tables["patches"]:
        table = part.read(context.folder)
        for batch in table.filter(pc.equal(table.column("image_size"), size)).to_batches(max_chunksize=256):
            for image_id, features, dim in zip(*map(batch.column, ("image_id", "features", "dim")), strict=True):
                yield image_id.as_py(), np.frombuffer(features.as_buffer(), np.float16).reshape(-1, dim.as_py())


@dataclass(frozen=True)
class CollectPatches:
    """Collects features of the normal images of a shard."""

    detector: FittedDetector
    backbone: BackboneConfig
    n_normals: int
    pixel_range: PixelRange | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `patches` and `quarantine`."""
        from ancd_ray.backbones.loaded import load_cached

        images = attach_range(shard.rows_of("images"), self.pixel_range)
        images = [row for row in images if row["role"] == "normal"]
        rows: list[dict[str, Any]] = []
        bad = []
        for image, found in self.detector.collect(images, load_cached(self.backbone), self.n_normals):
            if isinstance(found, BadImage):
                bad.append(quarantine_row(image, "fit_detector", str(found)))
                continue
            rows += [{"image_id": image["image_id"], "product": image["product"], **row} for row in found]
        return ShardResult({"patches": rows, "quarantine": bad})
