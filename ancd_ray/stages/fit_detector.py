"""Fit detector: makes the state of a detector that learns from normal images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.backbones.loaded import backbone
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import BadImage
from ancd_ray.detectors.base import FittedDetector
from ancd_ray.engine.context import Context, StageError, quarantined
from ancd_ray.engine.outputs import Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load


def run(context: Context, detector: FittedDetector, backbone_config: BackboneConfig) -> Result:
    """Fit the detector of a product; its state is a file of the step.

    Raises
    ------
    StageError
        The product has no usable normal image.
    """
    catalog = context.inputs["catalog"]
    roles = catalog.table("images", ["role"]).column("role").to_pylist()
    normals = roles.count("normal")
    if not normals:
        raise StageError(
            f"product {context.product} has no usable normal image, which {detector.name} learns from; "
            "give it some (train/good, `normals:`) or choose another detector.name"
        )
    worker = CollectPatches(detector, backbone_config, normals)
    result = Result.of_shards(context.map(worker, aligned({"images": catalog})))
    context.progress.note("fits")
    state, values = detector.fit(lambda size: _read_patches(context, result, size))
    context.folder.write(detector.state_file, state)
    files = {detector.state_file: hashlib.sha256(state).hexdigest()}
    return Result(result.tables, {"normals": normals, **values}, files)


def _read_patches(context: Context, result: Result, size: int) -> Iterator[NDArray[np.float16]]:
    for part in result.tables["patches"]:
        table = context.folder.read_table(part.file)
        for row in table.filter(pc.equal(table.column("image_size"), size)).to_batches(max_chunksize=256):
            for features, dim in zip(row.column("features"), row.column("dim"), strict=True):
                yield np.frombuffer(features.as_buffer(), np.float16).reshape(-1, dim.as_py())


@dataclass(frozen=True)
class CollectPatches:
    """Collects features of every normal image."""

    detector: FittedDetector
    backbone: BackboneConfig
    n_normals: int
    load: ClassVar[Load] = "model"

    def __call__(self, shard: Shard) -> Work:
        """Compute the rows of `patches`."""
        images = [row for row in shard.rows_of("images") if row["role"] == "normal"]
        rows: list[dict[str, Any]] = []
        bad = []
        for image, found in self.detector.collect(images, backbone(self.backbone), self.n_normals):
            if isinstance(found, BadImage):
                bad.append(quarantined(image, "fit_detector", str(found)))
                continue
            rows += [{"image_id": image["image_id"], "product": image["product"], **row} for row in found]
        return Work({"patches": rows, "quarantine": bad})
