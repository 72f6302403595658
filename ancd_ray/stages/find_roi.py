"""Find ROI: the region of interest of a product, as the job gives it, or found in some of its images."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ancd_ray.data.deadline import run_in_time
from ancd_ray.data.images import BadImage
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import FOREGROUND_SIDE, ROI, Roi, find_foreground, mark_foreground
from ancd_ray.data.sources import attach_range, read_rgb
from ancd_ray.detectors.base import choose_references
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, StageError
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage

_LOOKED_AT = 24  # normal images, or images of the product, whose foreground is `roi: auto`


@dataclass(frozen=True)
class FindRoi(Stage):
    """Writes the region of interest; `given` is the document of the job's, None if it is found in images."""

    name: ClassVar[str] = "find_roi"
    version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        images: Table

    class Out:
        """Artifacts that the stage makes, by role."""

        roi: Files

    given: Mapping[str, Any] | None

    @property
    def resources(self) -> Resources:
        """Images are read if it is found in them."""
        return "light" if self.given is not None else "images"

    def run(self, context: Context, inputs: In) -> Work:
        """Write the region, and tell how it fits the images.

        Raises
        ------
        StageError
            It is outside of every image.
        """
        sizes = inputs.images.read(["height", "width"]).group_by(["height", "width"]).aggregate([])
        shapes = list(zip(*(sizes.column(name).to_pylist() for name in ("height", "width")), strict=True))
        note = None
        if self.given is None:
            roi = yield from self._find(context, inputs)
            if roi is None:
                note, roi = (
                    "roi: auto: the images have no foreground of their own; all of each is looked at",
                    Roi.whole(),
                )
        else:
            roi = Roi.read(self.given)
            note = roi.describe_aspect(shapes)
        if shapes and not any(roi.find_box(shape) for shape in shapes):
            height, width = shapes[0]
            raise StageError(
                f"product {context.product}: the region of interest is outside its images ({width} x {height}); "
                "correct `roi:`"
            )
        if note:
            context.progress.note(note)
        data = json.dumps(roi.write(), sort_keys=True).encode()
        context.folder.write(ROI, data)
        return Result({}, {"note": note}, {ROI: hashlib.sha256(data).hexdigest()})

    def _find(self, context: Context, inputs: In) -> Any:
        listed = inputs.images.read(["image_id", "role"])
        roles = dict(zip(*(listed.column(name).to_pylist() for name in ("image_id", "role")), strict=True))
        normals = [image_id for image_id, role in roles.items() if role == "normal"]
        chosen = choose_references(normals or roles, _LOOKED_AT)
        worker = MarkForegrounds(chosen, PixelRange.find(inputs.images.values))
        done = yield from context.map(worker, align_shards({"images": inputs.images}))
        packed = [np.frombuffer(base64.b64decode(each), np.uint8) for shard in done for each in shard.values["marked"]]
        side = FOREGROUND_SIDE
        return find_foreground([np.unpackbits(bits, count=side**2).reshape(side, side) for bits in packed])


@dataclass(frozen=True)
class MarkForegrounds:
    """Marks the foreground of images of a shard; `chosen` has their ids."""

    chosen: frozenset[str]
    pixel_range: PixelRange | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Return the marks as bits; images that cannot be read are quarantined by other steps."""
        rows = [row for row in shard.rows_of("images") if row["image_id"] in self.chosen]
        marked = []
        for row in attach_range(rows, self.pixel_range):
            try:
                foreground = mark_foreground(run_in_time(partial(read_rgb, row)))
            except BadImage:
                continue
            marked.append(base64.b64encode(np.packbits(foreground).tobytes()).decode())
        return ShardResult({}, {"marked": marked})
