"""Catalog: reads the header and computes the digest of every listed file; unreadable files are quarantined."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from ancd_ray.data.deadline import run_in_time
from ancd_ray.data.images import BadImage, measure_extremes, read_header
from ancd_ray.data.listed import ListedImages, TableRows
from ancd_ray.data.pixel_range import Extremes, PixelRange
from ancd_ray.data.roles import ListedImage
from ancd_ray.data.sources import read_image
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, divide_listing, quarantine_row
from ancd_ray.engine.outputs import Result, Shard, ShardResult
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage, unhashed

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Catalog(Stage):
    """Lists the readable images of a product; `listing_digest` covers `rows` and the stamps of their files."""

    name: ClassVar[str] = "catalog"
    version: ClassVar[int] = 4
    resources: ClassVar[Resources] = "images"

    @dataclass(frozen=True)
    class In:
        """No inputs."""

    class Out:
        """Artifacts that the stage makes, by role."""

        listing: Table
        images: Table

    listing_digest: str
    bits: int | None = None  # declared depth of the images
    rows: Sequence[Row] = unhashed(())

    @property
    def n_images(self) -> int:
        """Number of its rows."""
        return len(self.rows)

    def run(self, context: Context, inputs: In) -> Work:  # noqa: ARG002
        """Divide the listing into shards and open its files."""
        parts, shards = divide_listing(context.folder, self.rows)
        done = yield from context.map(OpenFiles(), shards)
        extremes = [Extremes(*each) for shard in done for each in shard.values.get("extremes", ())]
        pixel_range = asdict(PixelRange.of(extremes, self.bits)) if extremes else None
        tables = {**Result.of_shards(done).tables, "listing": parts}
        return Result(tables, {"listed": len(self.rows), "pixel_range": pixel_range})

    def for_travel(self) -> Catalog:
        """Return the stage without its listing."""
        return replace(self, rows=())


@dataclass(frozen=True)
class OpenFiles:
    """Opens the files of a shard."""

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `images` and `quarantine`."""
        images, bad, extremes = run_in_time(partial(open_files, shard.rows_of("listing")))
        return ShardResult({"images": images, "quarantine": bad}, {"extremes": [list(each) for each in extremes]})


def open_files(
    listing: Iterable[Row],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Extremes]]:
    """Compute the rows of `images` and `quarantine` of rows of a listing, and the extremes of the deep images."""
    images, bad, extremes = [], [], []
    for listed in listing:
        row = dict(listed)
        problem = row.pop("problem")
        try:
            if problem:
                raise BadImage(problem)
            data = read_image(row)
            header = read_header(data)
            deep = measure_extremes(data) if header.is_deep else None
        except BadImage as error:
            bad.append(quarantine_row(row, "catalog", str(error)))
            continue
        if deep:
            extremes.append(deep)
        about = {"width": header.width, "height": header.height, "orientation": header.orientation}
        images.append({**row, **about, "digest": hashlib.sha256(data).hexdigest()})
    return images, bad, extremes


def make_image_id(product: str, path: str) -> str:
    """Make the id of an image, which does not depend on the machine."""
    return hashlib.sha256(f"{product}\n{path}".encode()).hexdigest()[:20]


def make_listing_rows(
    product: str, listed: Iterable[ListedImage], is_base: bool, mask_threshold: int | None = None
) -> TableRows:
    """Make the rows of a product's listing, sorted by id.

    Parameters
    ----------
    product
        Name of the product.
    listed
        Images of the product.
    is_base
        Whether the product is the base set.
    mask_threshold
        Values of masks above it are foreground.
    """
    constant = {"product": product, "mask_threshold": pa.scalar(mask_threshold, pa.int32())}
    constant |= {"role": "base"} if is_base else {}
    return ListedImages.collect(listed).make_rows(SCHEMAS["listing"], partial(make_image_id, product), **constant)
