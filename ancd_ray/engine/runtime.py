"""Runs the shards of a step, in this process for few images, otherwise on Ray.

The Ray Data dataset of a step has one row per shard (a few paths). The worker reads its part, processes it in small
batches and commits its own output. So blocks contain no images, the driver's memory does not grow with the archive, and
committed shards survive a failure. With images as rows (`map_batches` and `write_parquet`), every decoded byte would
pass through the object store, a rerun would append duplicates, and nothing would be committed before the end.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

from ancd_ray.config.errors import AncdError
from ancd_ray.data.location import Location, remember, remembered
from ancd_ray.data.store import Folder
from ancd_ray.engine.attempts import Attempt, Worker, forget_attempts, list_attempts
from ancd_ray.engine.integrity import inspect_folder
from ancd_ray.engine.outputs import CommittedShard, Shard, discard_shard, read_finished_shard

BLOCKS_A_CORE, ROWS_A_BLOCK = 4, 500  # blocks of Ray Data, which are its tasks
STALLED_AFTER_S = 1800  # without a finished shard: the execution fails instead of hanging


# light: reads a few columns, runs in the driver; images: opens image files, runs in Ray tasks; model: also runs a
# model, on GPUs in actors, one per GPU
Resources = Literal["light", "images", "model"]


class RuntimeProblem(AncdError):
    """Ray is unavailable or lacks the required resources; the message is one line."""


class Progress(Protocol):
    """Interface of the progress display of a step."""

    def total(self, n: int) -> None:
        """Set the number of units (images, regions, epochs) of the step."""

    def advance(self, n: int) -> None:
        """Add n completed units."""

    def note(self, text: str) -> None:
        """Set the message about the current activity."""


@dataclass
class Runtime:
    """Runs shards; Ray is started when a step first needs it."""

    cpus: int | None = None
    gpus: int | None = None
    in_process_below: int = 64
    address: str | None = None  # None: start Ray on this machine; "auto": join the running Ray
    dashboard: bool = False  # of Ray; without it, worker groups inside of trials do not release their resources
    _started: bool = field(default=False, init=False)
    _mine: bool = field(default=False, init=False)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            import ray

            ray.shutdown()
            self._mine = self._started = False

    @property
    def is_remote(self) -> bool:
        """Whether workers may run on other machines."""
        return self.address is not None

    def start(self) -> None:
        """Start or join Ray, unless this has been done.

        Raises
        ------
        RuntimeProblem
            Ray cannot be started or joined.
        """
        if self._started:
            return
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # messages of its C++ core are in Ray's log folder
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without GPUs sees none
        import ray

        if not ray.is_initialized():
            self._init()
            self._mine = True
        self._started = True
        self._configure_data()

    def _init(self) -> None:
        import ray

        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.address is None:
            options |= {"num_cpus": self.cpus, "num_gpus": self.gpus, "include_dashboard": self.dashboard}
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            with _suppress_stderr():
                ray.init(address=self.address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RuntimeProblem(f"Ray at {self.address or 'this machine'}: {str(error).splitlines()[0]}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # instead of Ray's handler, which prints a stack trace

    def devices(self) -> tuple[int, int]:
        """Return the numbers of CPUs and GPUs of Ray, rounded down."""
        self.start()
        import ray

        have = ray.cluster_resources()
        return int(have.get("CPU", 0)), int(have.get("GPU", 0))

    def map_shards(
        self,
        step: str,
        worker: Worker,
        shards: Sequence[Shard],
        folder: Folder,
        progress: Progress,
        resources: Resources,
    ) -> list[CommittedShard]:
        """Run the worker on all shards that are not committed yet; returns all shards in order.

        Raises
        ------
        RuntimeProblem
            Ray is unavailable.
        WorkerKilled
            A shard kills its worker, and no image can be left out.
        """
        done = dict(inspect_folder(folder).shards)
        progress.total(sum(shard.rows for shard in shards))
        progress.advance(sum(shard.rows for shard in shards if shard.index in done))
        todo = {shard.index: shard for shard in shards if shard.index not in done}
        for index in todo:
            discard_shard(folder, index)  # of one that is damaged
        few = sum(shard.rows for shard in shards) < self.in_process_below
        alone = resources == "light" or (few and not (self.is_remote and self.devices()[1]))  # GPUs may be remote
        try:
            while todo:
                attempts = {i: list_attempts(step, folder, shard, progress.note) for i, shard in todo.items()}
                open_ = [attempt for each in attempts.values() for attempt in each]
                joined = [index for index, each in attempts.items() if not each]
                ran = self._run_here(worker, open_) if alone else self._run_on_ray(worker, open_, resources)
                for index in chain(joined, (attempt.shard.index for attempt in ran if attempt.folder is folder)):
                    if finished := read_finished_shard(folder, index):
                        done[index] = finished
                        progress.advance(todo.pop(index).rows)
        except AncdError:  # it ends the job: the next run, perhaps with more memory, begins anew
            for shard in todo.values():
                forget_attempts(folder, shard)
            raise
        return [done[shard.index] for shard in shards]

    def _run_here(self, worker: Worker, attempts: Sequence[Attempt]) -> Iterator[Attempt]:
        for attempt in attempts:
            attempt.run(worker)
            yield attempt

    def _run_on_ray(self, worker: Worker, attempts: Sequence[Attempt], resources: Resources) -> Iterator[Attempt]:
        """Run attempts and yield those that are finished; the others killed their workers."""
        if not attempts:
            return
        cpus, gpus = self.devices()
        if cpus < 1:
            raise RuntimeProblem("Ray has no whole CPU for the work; start a node with CPUs or raise resources.cpus")
        import ray

        items = [{"attempt": i} for i in range(len(attempts))]
        # A task costs about 50 ms of a core, and progress advances by tasks: a few per core, more if they are long.
        blocks = max(BLOCKS_A_CORE * cpus, sum(attempt.shard.rows for attempt in attempts) // ROWS_A_BLOCK)
        dataset = ray.data.from_items(items, override_num_blocks=min(len(items), blocks))
        task = _Task(worker, attempts, [attempt.begun for attempt in attempts], remembered())
        if resources == "model" and gpus:
            # from_items has no read tasks that compete with the actors: they may take every CPU
            compute = ray.data.ActorPoolStrategy(size=min(len(attempts), gpus))
            mapped = dataset.map(_Actor, fn_constructor_args=(task,), compute=compute, num_cpus=1, num_gpus=1)
        else:  # Ray reuses the processes of tasks, also for the next step, and with them the loaded model
            mapped = dataset.map(task, num_cpus=1)
        for row in mapped.iter_rows():
            if row["refused"]:
                raise AncdError(row["refused"])
            if not row["was_killed"]:
                yield attempts[row["attempt"]]

    @staticmethod
    def _configure_data() -> None:
        """Turn off the output of Ray Data, and let an execution without progress fail."""
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.verbose_progress = False
        if hasattr(context, "execution_no_progress_timeout_s"):
            context.execution_no_progress_timeout_s = STALLED_AFTER_S
        logging.getLogger("ray.data").setLevel(logging.ERROR)


@dataclass(frozen=True)
class _Task:
    """The function that Ray Data maps over the numbers of attempts; `begun` has their counts before it.

    Ray Data repeats a task whose worker was killed, without end. The attempt that was running has a higher count then
    and is skipped: the driver decides how to go on, and the other attempts of the task are not held up.
    """

    worker: Worker
    attempts: Sequence[Attempt]
    begun: Sequence[int]
    access: Sequence[Location]  # to hosts of files, in memory only

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        remember(self.access)
        number = int(row["attempt"])
        attempt = self.attempts[number]
        was_killed, refused = False, ""
        if read_finished_shard(attempt.folder, attempt.shard.index) is None:  # Ray may run a task twice
            was_killed = attempt.begun > self.begun[number]
            try:
                if not was_killed:
                    attempt.run(self.worker)
            except AncdError as error:  # Ray would add the stack to its message
                refused = str(error)
        return {"attempt": number, "was_killed": was_killed, "refused": refused}


class _Actor:
    """`_Task` as an actor, whose process keeps the loaded model."""

    def __init__(self, task: _Task) -> None:
        self._task = task

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return self._task(row)


@contextmanager
def _suppress_stderr() -> Iterator[None]:
    """Redirect stderr at the file descriptor: Ray's C++ core prints its environment variables there."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
