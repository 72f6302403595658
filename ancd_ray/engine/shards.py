"""The shards of a step: which of them are left, the calls that do them, and what is asked for when workers die."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ancd_ray.config.errors import AncdError
from ancd_ray.data.store import Folder
from ancd_ray.engine.attempts import Attempt, Worker, forget_attempts, list_attempts
from ancd_ray.engine.calls import Call, Ended, Resources
from ancd_ray.engine.integrity import inspect_folder
from ancd_ray.engine.outputs import CommittedShard, Result, Shard, discard_shard, read_finished_shard
from ancd_ray.engine.progress import Progress


@dataclass(frozen=True, eq=False)
class ShardCall:
    """An attempt at a shard."""

    attempt: Attempt
    worker: Worker
    resources: Resources

    @property
    def rows(self) -> int:
        """Images or regions of the shard."""
        return self.attempt.shard.rows

    @property
    def begun(self) -> int:
        """Attempts that did not end."""
        return self.attempt.begun

    def is_done(self) -> bool:
        """Whether the shard is committed."""
        return read_finished_shard(self.attempt.folder, self.attempt.shard.index) is not None

    def run(self) -> str:
        """Compute the shard and commit it."""
        self.attempt.run(self.worker)
        return ""


@dataclass(frozen=True)
class Request:
    """Calls that a step waits for; `done` is called with each that was committed."""

    calls: Sequence[ShardCall]
    done: Callable[[Call], None]


T = TypeVar("T")
Work = Generator[Request, None, Result]  # what a stage does that divides its work: it pauses with each request
ShardWork = Generator[Request, None, list[CommittedShard]]


def map_shards(
    step: str, worker: Worker, shards: Sequence[Shard], folder: Folder, progress: Progress, resources: Resources
) -> ShardWork:
    """Ask for the shards that are not committed yet, until all are; returns all shards in order.

    Raises
    ------
    WorkerKilled
        A shard kills its worker, and no image can be left out.
    """
    done = dict(inspect_folder(folder).shards)
    progress.total(sum(shard.rows for shard in shards))
    progress.advance(sum(shard.rows for shard in shards if shard.index in done))
    todo = {shard.index: shard for shard in shards if shard.index not in done}
    for index in todo:
        discard_shard(folder, index)  # of one that is damaged

    def settle(index: int) -> None:
        if finished := read_finished_shard(folder, index):
            done[index] = finished
            progress.advance(todo.pop(index).rows)

    def note(call: Call) -> None:
        if isinstance(call, ShardCall) and call.attempt.folder is folder:  # not a half
            settle(call.attempt.shard.index)

    try:
        while todo:
            attempts = {i: list_attempts(step, folder, shard, progress.note) for i, shard in todo.items()}
            for index in [index for index, each in attempts.items() if not each]:
                settle(index)  # joined from its halves
            calls = [ShardCall(attempt, worker, resources) for each in attempts.values() for attempt in each]
            if calls:
                yield Request(calls, note)
    except AncdError:  # it ends the job: the next run, perhaps with more memory, begins anew
        for shard in todo.values():
            forget_attempts(folder, shard)
        raise
    return [done[shard.index] for shard in shards]


def run_alone(work: Generator[Request, None, T], run: Callable[[Sequence[Call]], Iterable[Ended]]) -> T:
    """Go through work whose calls are run by themselves, and return its result."""
    try:
        while True:
            request = next(work)
            for ended in run(request.calls):
                if ended.error:
                    work.throw(ended.error)
                if not ended.was_killed:
                    request.done(ended.call)
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]
