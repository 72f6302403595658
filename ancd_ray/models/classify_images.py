"""Classify images: applies a finished model to the images of a partition, in one pass.

The stages from detection to merging are composed: a worker reads and decodes each file once, passes tables in memory,
and writes only predictions, and pictures of the regions that are kept. The functions are those of the stages, so the
rows are the same as of a discovery that is done step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.data.images import BadImage, measure_brightness, read_bytes
from ancd_ray.data.listed import read_listing
from ancd_ray.data.sources import divide_rows, read_rgb
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS, conform
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, divide_listing
from ancd_ray.engine.outputs import Result, Shard, ShardResult
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage, unhashed
from ancd_ray.stages.catalog import open_files

if TYPE_CHECKING:
    from ancd_ray.models.model import Model, Prediction

Keep = Literal["none", "uncertain", "all"]
UNCERTAIN = 0.7  # regions whose class has a lower probability, or that are unknown, are uncertain
_OPENED, _PIXELS = 16, 64_000_000  # images and pixels in memory at most, except for a single larger image
_TABLES = ("image_predictions", "region_predictions", "regions", "quarantine")


@dataclass(frozen=True)
class ClassifyImages(Stage):
    """Classifies the images of a partition with a model.

    `model_digest` covers the files of the model in the folder `model`, and `partition` the rows in `listing`, a Parquet
    file of the table `listing`.
    """

    name: ClassVar[str] = "classify_images"
    version: ClassVar[int] = 4
    resources: ClassVar[Resources] = "model"

    @dataclass(frozen=True)
    class In:
        """No inputs."""

    class Out:
        """Artifacts that the stage makes, by role."""

        listing: Table
        image_predictions: Table
        region_predictions: Table
        regions: Table

    model_digest: str
    partition: str
    keep: Keep
    model: str = unhashed("")
    weights: str | None = unhashed(None)  # weights file of the backbone, if its location has changed
    listing: str = unhashed("")

    @property
    def n_images(self) -> int:
        """Number of rows of the listing; 0 if it cannot be read, which `run` tells."""
        place, _, name = self.listing.rpartition("/")
        try:
            return Folder(place).count_rows(name)
        except (OSError, ValueError):
            return 0

    def run(self, context: Context, inputs: In) -> Work:  # noqa: ARG002
        """Divide the listing into shards and classify their images."""
        parts, shards = divide_listing(context.folder, rows := self._read_listing())
        done = yield from context.map(ClassifyShard(self.model, self.model_digest, self.weights, self.keep), shards)
        return Result({**Result.of_shards(done).tables, "listing": parts}, {"listed": rows.num_rows})

    def _read_listing(self) -> pa.Table:
        place, _, name = self.listing.rpartition("/")
        rows = conform(read_listing(Folder(place), name, SCHEMAS["listing"].names), SCHEMAS["listing"])
        return rows.filter(pc.equal(rows.column("role"), "query"))  # samples of discoveries have normal images, too


@dataclass(frozen=True)
class ClassifyShard:
    """Classifies the images of a shard."""

    model: str
    model_digest: str
    weights: str | None
    keep: Keep

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `image_predictions`, `region_predictions`, kept `regions` and `quarantine`."""
        model = _load(self.model, self.model_digest, self.weights)
        found = classify_listed(model, shard.rows_of("listing"))
        return ShardResult({**found._asdict(), "regions": _keep(found.regions, found.region_predictions, self.keep)})


def classify_listed(model: Model, listed: Sequence[Mapping[str, Any]]) -> Prediction:
    """Classify the images of rows of the table `listing`; each file is read once and decoded once."""
    from ancd_ray.models.model import Prediction

    found = []
    for start in range(0, len(listed), _OPENED):
        opened, bad, _ = open_files([_carry_bytes(row) for row in listed[start : start + _OPENED]])
        found += [
            model.classify([_carry_pixels(row, model) for row in rows])
            for rows in divide_rows(opened, _OPENED, _PIXELS)
        ]
        rows = {name: bad if name == "quarantine" else [] for name in _TABLES}
        found.append(Prediction(**{name: conform(rows[name], SCHEMAS[name]) for name in _TABLES}))
    return Prediction(**{name: pa.concat_tables([getattr(each, name) for each in found]) for name in _TABLES})


def _carry_bytes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the content of its file; one that cannot be read is left to who opens it."""
    try:
        return {**row, "image_bytes": None if row["problem"] else read_bytes(row["uri"])}
    except BadImage:
        return dict(row)


def _carry_pixels(row: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Return a row with its pixels and brightness; an image that cannot be decoded is left to the detector."""
    try:
        pixels = read_rgb({**row, "pixel_range": model.pixel_range})
    except BadImage:
        return dict(row)
    return {**row, "pixels": pixels, "brightness": measure_brightness(pixels)}


def _keep(regions: pa.Table, predictions: pa.Table, keep: Keep) -> pa.Table:
    """Return the regions whose pictures are kept."""
    if keep == "all":
        return regions
    is_uncertain = pc.or_(pc.less(predictions.column("confidence"), UNCERTAIN), predictions.column("is_unknown"))
    uncertain = predictions.filter(is_uncertain).column("region_id")
    chosen = uncertain if keep == "uncertain" else pa.chunked_array([[]], pa.string())
    return regions.filter(pc.is_in(regions.column("region_id"), value_set=chosen))


@lru_cache(maxsize=2)
def _load(folder: str, digest: str, weights: str | None) -> Model:  # noqa: ARG001  (part of the key)
    """Load a model, once per process."""
    from ancd_ray.models.model import Model

    return Model.load(folder, weights)
