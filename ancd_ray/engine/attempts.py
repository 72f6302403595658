"""Attempts at shards: one that kills its worker is tried a few times, then in halves, down to the image that does it.

    <folder>/attempts/00003.json    number of attempts that were begun; deleted when the shard is committed
    <folder>/halves/00003/          the two halves of a shard, in a folder like that of a step, until they are joined

An attempt is counted before its work starts, and no longer counted if the work ends, with a result or an exception.
What remains are attempts whose process died: of a segmentation fault, for lack of memory, with its machine. The count
is on disk, so that it survives the driver, which in a small job is the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa

from ancd_ray.config.errors import AncdError
from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import LISTS, CommittedShard, Part, Shard, ShardResult, commit_shard, read_finished_shard

ATTEMPTS = 3  # at a shard, and at an image; what lies between is halved after the first, since something in it kills


class WorkerKilled(AncdError):
    """A shard kills its worker, and no image can be left out; the message is one line."""


class Worker(Protocol):
    """Interface of workers, which compute the rows of a shard; they are pickled, and load models in the call."""

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of a shard; they must depend on nothing but the worker and the shard."""


@dataclass(frozen=True)
class Attempt:
    """A shard, or a part of one, and the folder that it is committed to; `lost` is the quarantine row of its image."""

    folder: Folder
    shard: Shard
    name: str
    lost: Mapping[str, Any] | None = None

    @property
    def begun(self) -> int:
        """Number of attempts that were begun and did not end."""
        return read_count(self.folder, _count_file(self.shard))

    def run(self, worker: Worker) -> CommittedShard:
        """Compute the shard and commit it.

        Raises
        ------
        WorkerKilled
            The image kills its worker in a step that cannot leave it out.
        """
        start = time.perf_counter()
        with count_attempt(self.folder, _count_file(self.shard)):
            work = worker(self.shard)
            if self.lost:
                if "quarantine" not in work.tables:
                    raise WorkerKilled(f"{self.name}: {self.lost['uri']} {self.lost['reason']}; exclude this image")
                work = replace(work, tables={**work.tables, "quarantine": [self.lost]})
            return commit_shard(self.folder, self.shard.index, work, start)


def read_count(folder: Folder, file: str) -> int:
    """Return the number of attempts that were begun and did not end."""
    try:
        return int(folder.read_json(file))
    except (FileNotFoundError, ValueError, TypeError):
        return 0


@contextmanager
def count_attempt(folder: Folder, file: str) -> Iterator[None]:
    """Count an attempt while the body runs; the count stays if the process dies in it."""
    before = read_count(folder, file)
    folder.write_json(file, before + 1, durable=False)
    try:
        yield
    except BaseException:
        folder.write_json(file, before, durable=False)
        raise
    folder.discard(file)


def list_attempts(step: str, folder: Folder, shard: Shard, note: Callable[[str], None]) -> list[Attempt]:
    """Return what is to be done next for a shard, and join the halves of one that is done; none if it is committed.

    Parameters
    ----------
    step
        Name of the step.
    folder
        Folder of the step.
    shard
        The shard.
    note
        Is called with shards that killed their workers.

    Raises
    ------
    WorkerKilled
        The shard kills its worker, and cannot be divided.
    """
    return _list(Attempt(folder, shard, f"shard {shard.index} of {step}"), step, note)


def forget_attempts(folder: Folder, shard: Shard) -> None:
    """Delete the count of attempts at a shard, and its halves, so that another run begins anew."""
    folder.discard(_count_file(shard))
    (folder / "halves" / f"{shard.index:05d}").remove()


def _list(attempt: Attempt, step: str, note: Callable[[str], None]) -> list[Attempt]:
    shard, begun = attempt.shard, attempt.begun
    if read_finished_shard(attempt.folder, shard.index):
        return []
    is_between = shard.only is not None and len(shard.only) > 1
    if begun < (1 if is_between else ATTEMPTS):
        if shard.only is not None:
            note(f"{attempt.name} kills its worker: {len(shard.only)} of its images are tried alone")
        elif begun:
            note(f"{attempt.name} killed its worker (attempt {begun} of {ATTEMPTS})")
        return [attempt]
    image_ids = shard.image_ids()
    if begun > ATTEMPTS or not image_ids:
        raise WorkerKilled(f"{attempt.name} killed its worker {begun} times, and not because of one of its images")
    if len(image_ids) == 1:
        lost = _quarantine(attempt, image_ids[0], step)
        note(f"{attempt.name}: {lost['uri']} {lost['reason']}")
        return [replace(attempt, shard=replace(shard, only=frozenset()), lost=lost)]
    middle = len(image_ids) // 2
    place = attempt.folder / "halves" / f"{shard.index:05d}"
    halves = [
        replace(attempt, folder=place, shard=replace(shard, index=i, only=frozenset(ids)))
        for i, ids in enumerate((image_ids[:middle], image_ids[middle:]))
    ]
    if left := [inner for half in halves for inner in _list(half, step, note)]:
        return left
    _join(attempt, halves)
    return []


def _quarantine(attempt: Attempt, image_id: str, step: str) -> dict[str, Any]:
    """Make the quarantine row of an image."""
    from ancd_ray.engine.context import quarantine_row

    reason = f"killed its worker {ATTEMPTS} times"
    for table in LISTS:
        if table in attempt.shard.inputs:
            row = next(row for row in attempt.shard.rows_of(table) if row["image_id"] == image_id)
            return quarantine_row(row, step, reason)
    raise WorkerKilled(f"{attempt.name}: image {image_id} {reason}; exclude this image")


def _join(attempt: Attempt, halves: Sequence[Attempt]) -> None:
    """Commit a shard from its halves: one part of each table, as if nothing had been killed."""
    done = [read_finished_shard(half.folder, half.shard.index) for half in halves]
    found = [half for half in done if half is not None]
    if any(half.values for half in found):
        raise WorkerKilled(f"{attempt.name} killed its worker {attempt.begun} times, and its figures cannot be divided")
    place = halves[0].folder
    parts: dict[str, list[Part]] = {}
    for half in found:
        for name, part in half.parts.items():
            parts.setdefault(name, []).append(part)
    tables = {name: pa.concat_tables([part.read(place) for part in each]) for name, each in parts.items()}
    begun = time.perf_counter() - sum(half.seconds for half in found)
    commit_shard(attempt.folder, attempt.shard.index, ShardResult(tables), begun)
    forget_attempts(attempt.folder, attempt.shard)


def _count_file(shard: Shard) -> str:
    return f"attempts/{shard.index:05d}.json"
