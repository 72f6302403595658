"""Fit detector: fits a detector to normal images, or to references."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.images import BadImage
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import Roi
from ancd_ray.data.sources import attach_range
from ancd_ray.detectors.base import DetectorConfig
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, StageError, quarantine_row
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage, unhashed


@dataclass(frozen=True)
class FitDetector(Stage):
    """Fits the state of a detector, such as a memory bank; a detector of several parts has several.

    `backbone` is None if the detector does not use one. `declared` is the detector with the places of the files that it
    names; what is in them is known by digests.
    """

    name: ClassVar[str] = "fit_detector"
    version: ClassVar[int] = 4

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table
        roi: Files | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        detector_state: Files

    detector: DetectorConfig
    backbone: BackboneConfig | None
    declared: DetectorConfig | None = unhashed(None)  # noqa: RUF009  (it is a field)

    @property
    def resources(self) -> Resources:
        """Those of a network if it computes features, else of a few files."""
        return "model" if self.backbone else "light"

    def run(self, context: Context, inputs: In) -> Work:
        """Collect features of the images that the detector learns from, and fit it.

        Raises
        ------
        StageError
            None of them can be used.
        """
        listed = inputs.images.read(["image_id", "role"])
        images = list(zip(listed.column("image_id").to_pylist(), listed.column("role").to_pylist(), strict=True))
        chosen = [part.choose_images(images) if part.learns else frozenset() for part in self.detector.parts]
        roi = Roi.load(inputs.roi.read) if inputs.roi else None
        worker = CollectPatches(self.detector, self.backbone, chosen, PixelRange.find(inputs.images.values), roi)
        done = yield from context.map(worker, align_shards({"images": inputs.images}))
        result = Result.of_shards(done)
        context.progress.note("fitting")
        files: dict[str, str] = {}
        values: dict[str, Any] = {}
        for i, part in enumerate((self.declared or self.detector).parts):
            if part.state_file is None:
                continue
            rows = _PatchReader(context, result, i)
            if part.learns and not rows.n_images:
                kind = "normal image" if part.needs == "normals" else "image"
                raise StageError(
                    f"product {context.product} has no usable {kind}, which {part.name} learns from; "
                    "give it some (train/good, `normals:`) or choose another detector.name"
                )
            state, figures = part.fit(rows.read)
            name = self.detector.name_state(i)
            context.folder.write(name, state)
            files[name] = hashlib.sha256(state).hexdigest()
            values |= {"images": rows.n_images, **figures} if part.learns else figures
        return Result(result.tables, values, files)


@dataclass(frozen=True)
class _PatchReader:
    """Reads the collected features of a part of the detector."""

    context: Context
    result: Result
    part: int

    @property
    def n_images(self) -> int:
        """Number of images that features were collected of."""
        return len(
            {image_id for each in self._tables(["image_id", "part"]) for image_id in each["image_id"].to_pylist()}
        )

    def read(self, image_size: int, neighborhood: int) -> Iterator[tuple[str, NDArray[np.float16]]]:
        """Yield the id of each image and its features (N, D)."""
        for table in self._tables():
            is_asked = pc.and_(
                pc.equal(table.column("image_size"), image_size), pc.equal(table.column("neighborhood"), neighborhood)
            )
            for batch in table.filter(is_asked).to_batches(max_chunksize=256):
                for image_id, features, dim in zip(*map(batch.column, ("image_id", "features", "dim")), strict=True):
                    yield image_id.as_py(), np.frombuffer(features.as_buffer(), np.float16).reshape(-1, dim.as_py())

    def _tables(self, columns: list[str] | None = None) -> Iterator[Any]:
        for stored in self.result.tables["patches"]:
            table = stored.read(self.context.folder, columns)
            yield table.filter(pc.equal(table.column("part"), self.part))


@dataclass(frozen=True)
class CollectPatches:
    """Collects the features of images of a shard; `chosen` has the ids of those that each part learns from."""

    detector: DetectorConfig
    backbone: BackboneConfig | None
    chosen: Sequence[frozenset[str]]
    pixel_range: PixelRange | None = None
    roi: Roi | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `patches` and `quarantine`; images to be classified are left to the detect step."""
        from ancd_ray.backbones.loaded import load_cached

        images = attach_range(shard.rows_of("images"), self.pixel_range, self.roi)
        rows: list[dict[str, Any]] = []
        bad = {}
        for i, (part, chosen) in enumerate(zip(self.detector.parts, self.chosen, strict=True)):
            own = [row for row in images if row["image_id"] in chosen]
            if not own:
                continue
            assert self.backbone is not None, "a detector that learns from images has features of them"
            for image, found in part.collect(own, load_cached(self.backbone), len(chosen)):
                if isinstance(found, BadImage):
                    if image["role"] == "normal":
                        bad[image["image_id"]] = quarantine_row(image, "fit_detector", str(found))
                    continue
                for each in found:
                    rows.append(
                        {
                            "image_id": image["image_id"],
                            "product": image["product"],
                            "part": i,
                            "image_size": each.image_size,
                            "neighborhood": each.neighborhood,
                            "dim": each.features_ND.shape[1],
                            "features": each.features_ND.tobytes(),
                        }
                    )
        return ShardResult({"patches": rows, "quarantine": list(bad.values())})
