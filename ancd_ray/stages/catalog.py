"""Catalog: which images there are, and which of them are images.

The listing (names alone) is cut into shards; every file is then opened once for its header and its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ancd_ray.data.images import BadImage, image_size
from ancd_ray.data.roles import ListedImage
from ancd_ray.data.sources import read_image
from ancd_ray.engine.context import Context, quarantined, shard_rows
from ancd_ray.engine.outputs import Result, Shard, Work, write_part
from ancd_ray.engine.runtime import Load


def image_id(product: str, path: str) -> str:
    """The id of an image: the same for the same archive on every machine."""
    return hashlib.sha256(f"{product}\n{path}".encode()).hexdigest()[:20]


def listing_rows(
    product: str, listed: Sequence[ListedImage], is_base: bool, maps: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The listing of a product, by id. `maps`: the precomputed anomaly map of a path; `is_base`: labels are known."""
    rows = [
        {
            "image_id": image_id(product, image.path),
            "product": product,
            "uri": image.uri,
            "role": "base" if is_base else image.role,
            "label": image.label,
            "mask_uri": image.mask_uri,
            "map_uri": maps.get(image.path),
            "captured_at": image.captured_at,
            "problem": image.problem,
        }
        for image in listed
    ]
    return sorted(rows, key=lambda row: str(row["image_id"]))


def run(context: Context, rows: Sequence[Mapping[str, Any]]) -> Result:
    """The tables `images` and `quarantine` of a listing."""
    size = shard_rows(len(rows))
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    parts = [write_part(context.folder, "listing", i, piece) for i, piece in enumerate(pieces)]
    shards = [Shard(i, {"listing": (context.folder, part.file)}, part.rows) for i, part in enumerate(parts)]
    done = context.map(OpenFiles(), shards)
    result = Result.of_shards(done)
    return Result({**result.tables, "listing": parts}, {"listed": len(rows)})


@dataclass(frozen=True)
class OpenFiles:
    """Header and digest of every listed file."""

    load: ClassVar[Load] = "images"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `images`; what is no image goes to `quarantine`."""
        images, bad = [], []
        for row in shard.rows_of("listing"):
            problem = row.pop("problem")
            try:
                if problem:
                    raise BadImage(problem)
                data = read_image(row)
                width, height = image_size(data)
            except BadImage as error:
                bad.append(quarantined(row, "catalog", str(error)))
                continue
            images.append({**row, "width": width, "height": height, "digest": hashlib.sha256(data).hexdigest()})
        return Work({"images": images, "quarantine": bad})
