"""Fits PatchCore: patch features of normal images, and of those of each size a coreset as its memory bank."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ancd_ray.backbones.loaded import backbone, device
from ancd_ray.config.job import Backbone, PatchCore
from ancd_ray.data.images import BadImage
from ancd_ray.detectors.patchcore import Patches, coreset, packed
from ancd_ray.engine.context import Context, StageError, quarantined
from ancd_ray.engine.outputs import Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load

STATE = "memory_bank.safetensors"


def run(context: Context, detector: PatchCore, trunk: Backbone) -> Result:
    """The memory banks of a product, one for each size, as `memory_bank.safetensors`.

    Raises:
        StageError: the product has no usable normal image.
    """
    catalog = context.inputs["catalog"]
    roles = catalog.table("images", ["role"]).column("role").to_pylist()
    normals = roles.count("normal")
    if not normals:
        raise StageError(
            f"product {context.product} has no usable normal image, which PatchCore learns from; "
            "give it some (train/good, `normals:`) or choose another detector.name"
        )
    per_image = max(1, -(-detector.candidates // normals))
    worker = NormalPatches(detector, trunk, per_image)
    done = context.map(worker, aligned({"images": catalog}))
    context.progress.note("coreset")
    result = Result.of_shards(done)
    banks, candidates = {}, 0
    for size in detector.sizes:
        features = torch.cat(list(_features(context, result, size)))
        candidates += len(features)
        banks[size] = features[coreset(features, detector.coreset)].half()
    data = packed(banks)
    context.folder.write(STATE, data)
    (dim,) = {bank.shape[1] for bank in banks.values()}
    values = {
        "normals": normals,
        "candidates": candidates,
        "memory": sum(len(bank) for bank in banks.values()),
        "dim": dim,
    }
    return Result(result.tables, values, {STATE: hashlib.sha256(data).hexdigest()})


def _features(context: Context, result: Result, size: int) -> Iterator[torch.Tensor]:
    for part in result.tables["patches"]:
        table = context.folder.read_table(part.file)
        for row in table.filter(pc.equal(table.column("image_size"), size)).to_batches(max_chunksize=256):
            for features, dim in zip(row.column("features"), row.column("dim"), strict=True):
                values = np.frombuffer(features.as_buffer(), np.float16).reshape(-1, dim.as_py())
                yield torch.from_numpy(values.astype(np.float32))


@dataclass(frozen=True)
class NormalPatches:
    """Some patches of every normal image at every size, drawn by its id."""

    detector: PatchCore
    trunk: Backbone
    per_image: int
    load: ClassVar[Load] = "model"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `patches`."""
        images = [row for row in shard.rows_of("images") if row["role"] == "normal"]
        patches = Patches(backbone(self.trunk), self.detector, device())
        rows: list[dict[str, Any]] = []
        bad = []
        for image, found in patches.of_images(images):
            if isinstance(found, BadImage):
                bad.append(quarantined(image, "fit_detector", str(found)))
                continue
            rng = np.random.default_rng(int(image["image_id"][:12], 16))
            for size, features in zip(self.detector.sizes, found, strict=True):
                flat = features.reshape(-1, features.shape[-1]).cpu()
                chosen = np.sort(rng.permutation(len(flat))[: self.per_image])
                values = flat[torch.from_numpy(chosen)].half().numpy()
                rows.append(
                    {
                        "image_id": image["image_id"],
                        "product": image["product"],
                        "image_size": size,
                        "dim": values.shape[1],
                        "features": pa.py_buffer(values.tobytes()).to_pybytes(),
                    }
                )
        return Work({"patches": rows, "quarantine": bad})
