"""What every stage is given, and the one way in which they all set an input aside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ancd_ray.config.errors import AncdError
from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import Done, Output, Shard
from ancd_ray.engine.runtime import Progress, Runtime, Worker

SHARDS = 32  # pieces of a large step: enough for a cluster's balance, few enough for Ray's cost a task
SHARD_ROWS = (16, 512)


class StageError(AncdError):
    """A step cannot give a sensible result; one line that says why and what to do."""


@dataclass(frozen=True)
class Context:
    """A step's folder, the outputs that it reads, and what runs its work."""

    product: str
    folder: Folder
    inputs: Mapping[str, Output]
    runtime: Runtime
    progress: Progress
    max_quarantined: float = 0.5
    on_epoch: Callable[[Any], None] = lambda _: None  # hears how far a training is: its history

    def map(self, worker: Worker, shards: Sequence[Shard]) -> list[Done]:
        """Every shard through the worker; see `Runtime.map_shards`.

        Raises:
            StageError: more of the input was set aside than the job allows.
        """
        done = self.runtime.map_shards(worker, shards, self.folder, self.progress)
        rows = sum(shard.rows for shard in shards)
        lost = sum(shard.parts["quarantine"].rows for shard in done if "quarantine" in shard.parts)
        if lost and lost > self.max_quarantined * rows:
            first = self.first_reason(done)
            raise StageError(
                f"{lost} of {rows} images of product {self.product} cannot be used, more than "
                f"resources.max_quarantined={self.max_quarantined:g} allows; the first: {first}"
            )
        return done

    def first_reason(self, done: Sequence[Done]) -> str:
        """What is wrong with the first input that was set aside."""
        part = next(shard.parts["quarantine"] for shard in done if "quarantine" in shard.parts)
        row = self.folder.read_table(part.file).slice(0, 1).to_pylist()[0]
        return f"{row['uri']}: {row['reason']}"


def quarantined(image: Mapping[str, Any], stage: str, reason: str) -> dict[str, Any]:
    """The row of an input that is set aside."""
    kept = {key: image[key] for key in ("image_id", "product", "uri", "role")}
    return {**kept, "stage": stage, "reason": reason}


def shard_rows(n: int) -> int:
    """How many images a shard holds, for n in all: the same for the same archive on every machine."""
    low, high = SHARD_ROWS
    return min(max(math.ceil(n / SHARDS), low), high)
