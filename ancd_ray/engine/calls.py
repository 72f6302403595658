"""Calls: pieces of work that a process does and commits by itself, here or in a worker of Ray.

A call is a shard of a step, or a whole step. One dataset of Ray Data has the calls of many steps as its rows, so that
starting an execution is paid for once, whatever the number of products. The workers read what they need and commit
what they make. So blocks contain no images, the driver's memory does not grow with the archive, and what is committed
survives a failure. With images as rows (`map_batches` and `write_parquet`), every decoded byte would pass through the
object store, a rerun would append duplicates, and nothing would be committed before the end.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ancd_ray.config.errors import AncdError
from ancd_ray.data.location import Location, remember, remembered

BLOCKS_A_CORE, ROWS_A_BLOCK = 4, 500  # blocks of Ray Data, which are its tasks

# light: reads a few columns; images: opens image files, runs in Ray tasks; model: also runs a model, on GPUs in
# actors, one per GPU
Resources = Literal["light", "images", "model"]


class Call(Protocol):
    """A piece of work; it is pickled to its worker."""

    @property
    def rows(self) -> int:
        """Number of images or regions that it covers."""

    @property
    def resources(self) -> Resources:
        """What its worker needs."""

    @property
    def begun(self) -> int:
        """How often it was begun without an end, which is how often its process died."""

    def is_done(self) -> bool:
        """Whether it is committed."""

    def run(self) -> str:
        """Do the work and commit it; returns a message to be shown, or nothing."""


@dataclass(frozen=True)
class Ended:
    """How a call ended: committed, with the error that it raised, or with its worker."""

    call: Call
    said: str = ""
    error: AncdError | None = None
    was_killed: bool = False


def run_here(calls: Sequence[Call]) -> Iterator[Ended]:
    """Run calls one after another in this process."""
    for call in calls:
        try:
            yield Ended(call, call.run())
        except AncdError as error:
            yield Ended(call, error=error)


def run_on_ray(calls: Sequence[Call], cpus: int, gpus: int) -> Iterator[Ended]:
    """Run calls in one execution of Ray Data, in any order; calls with models in actors if there are GPUs."""
    import ray

    on_gpus = [number for number, call in enumerate(calls) if call.resources == "model" and gpus]
    others = sorted({*range(len(calls))}.difference(on_gpus))
    task, datasets = _Task(remembered()), []
    if others:  # Ray reuses the processes of tasks, also for the next execution, and with them the loaded model
        datasets.append(_make_dataset(calls, others, cpus).map(task, num_cpus=1))
    if on_gpus:
        # from_items has no read tasks that compete with the actors: they may take every CPU
        compute = ray.data.ActorPoolStrategy(size=min(len(on_gpus), gpus))
        dataset = _make_dataset(calls, on_gpus, cpus)
        datasets.append(dataset.map(_Actor, fn_constructor_args=(task,), compute=compute, num_cpus=1, num_gpus=1))
    for row in datasets[0].union(*datasets[1:]).iter_rows() if datasets[1:] else datasets[0].iter_rows():
        error = pickle.loads(row["error"]) if row["error"] else None
        yield Ended(calls[row["number"]], row["said"], error, row["was_killed"])


def _make_dataset(calls: Sequence[Call], numbers: Sequence[int], cpus: int) -> Any:
    """Make a dataset of some of the calls, with their numbers and their counts of attempts so far."""
    import ray
    from ray import cloudpickle

    items = [{"number": i, "begun": calls[i].begun, "call": cloudpickle.dumps(calls[i])} for i in numbers]
    # A task costs about 50 ms of a core, and progress advances by tasks: a few per core, more if they are long.
    blocks = max(BLOCKS_A_CORE * cpus, sum(calls[i].rows for i in numbers) // ROWS_A_BLOCK)
    return ray.data.from_items(items, override_num_blocks=min(len(items), blocks))


@dataclass(frozen=True)
class _Task:
    """The function that Ray Data maps over calls.

    Ray Data repeats a task whose worker was killed, without end. The call that was running has a higher count then
    and is skipped: the driver decides how to go on, and the other calls of the task are not held up.
    """

    access: Sequence[Location]  # to hosts of files, in memory only

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from ray import cloudpickle

        remember(self.access)
        call: Call = cloudpickle.loads(row["call"])
        said, error, was_killed = "", b"", False
        if not call.is_done():  # Ray may run a task twice
            was_killed = call.begun > row["begun"]
            try:
                said = "" if was_killed else call.run()
            except AncdError as refused:  # Ray would add the stack to its message
                error = pickle.dumps(refused)
        return {"number": row["number"], "said": said, "error": error, "was_killed": was_killed}


class _Actor:
    """`_Task` as an actor, whose process keeps the loaded model."""

    def __init__(self, task: _Task) -> None:
        self._task = task

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return self._task(row)
