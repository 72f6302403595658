"""Context of a running stage, sharding, and the quarantine of inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ancd_ray.config.errors import AncdError
from ancd_ray.data.store import Folder
from ancd_ray.engine.attempts import Worker
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.outputs import CommittedShard, Part, Rows, Shard, write_part
from ancd_ray.engine.progress import Progress
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.shards import ShardWork, map_shards

SHARDS = 32  # shards of a large step: enough to balance a cluster, few enough for Ray's overhead per task
SHARD_ROWS = (16, 512)


class StageError(AncdError):
    """A step failed; the message is one line with the reason and what to do."""


@dataclass(frozen=True)
class Context:
    """Runtime, progress display and output folder of a step."""

    step: str
    product: str
    folder: Folder
    resources: Resources
    runtime: Runtime
    progress: Progress
    max_quarantined: float = 0.5
    on_epoch: Callable[[Any], None] = lambda _: None  # called with a training's history after every epoch

    def map(self, worker: Worker, shards: Sequence[Shard]) -> ShardWork:
        """Run the worker on all shards: `done = yield from context.map(worker, shards)` in order of the shards.

        A stage that divides its work is a generator, which pauses here: its shards run together with those of other
        products.

        Raises
        ------
        StageError
            A larger share of the input was quarantined than the job allows.
        WorkerKilled
            A shard kills its worker, and no image can be left out.
        """
        done = yield from map_shards(self.step, worker, shards, self.folder, self.progress, self.resources)
        rows = sum(shard.rows for shard in shards)
        lost = sum(shard.parts["quarantine"].rows for shard in done if "quarantine" in shard.parts)
        if lost and lost > self.max_quarantined * rows:
            first = self.first_reason(done)
            raise StageError(
                f"{lost} of {rows} images of product {self.product} cannot be used, more than "
                f"resources.max_quarantined={self.max_quarantined:g} allows; the first: {first}"
            )
        return done

    def first_reason(self, done: Sequence[CommittedShard]) -> str:
        """Return location and reason of the first quarantined input."""
        part = next(shard.parts["quarantine"] for shard in done if "quarantine" in shard.parts)
        row = part.read(self.folder).slice(0, 1).to_pylist()[0]
        return f"{row['uri']}: {row['reason']}"


def quarantine_row(image: Mapping[str, Any], stage: str, reason: str) -> dict[str, Any]:
    """Make the row of `quarantine` for an input that cannot be used."""
    kept = {key: image[key] for key in ("image_id", "product", "uri", "role")}
    return {**kept, "stage": stage, "reason": reason}


def shard_rows(n: int) -> int:
    """Return the number of images per shard, for n in total; it does not depend on the machine."""
    low, high = SHARD_ROWS
    return min(max(math.ceil(n / SHARDS), low), high)


def is_sampled(image_id: str, share: float) -> bool:
    """Whether an image is among a share of all images; ids are digests, so their first digits are uniform."""
    return share >= 1 or int(image_id[:8], 16) < share * 16**8


def divide_listing(folder: Folder, rows: Rows) -> tuple[list[Part], list[Shard]]:
    """Write the rows of a listing in parts to a folder; returns the parts, and a shard for each of them."""
    size = shard_rows(len(rows))
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    parts = [write_part(folder, "listing", i, piece) for i, piece in enumerate(pieces)]
    return parts, [Shard(i, {"listing": (folder, part)}, part.rows) for i, part in enumerate(parts)]
