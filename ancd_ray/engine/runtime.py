"""Where the work of a step runs: in this process for a handful of images, on Ray for all others.

A step is cut into shards. The dataset that Ray Data sees is one row a shard (a few paths); the worker reads its part,
works in small batches and commits its own output, so blocks hold no image, the driver's memory does not grow with the
archive, and a shard that is committed survives whatever happens later. The alternative, images as rows through
`map_batches` and `write_parquet`, costs an object-store trip for every decoded byte, appends duplicates on a rerun and
commits nothing before the end.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ancd_ray.config.errors import AncdError
from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import Done, Shard, Work, commit_shard, finished_shard, finished_shards

BLOCKS_A_CORE, ROWS_A_BLOCK = 4, 500  # of what Ray Data hands out as one task
STALLED_AFTER_S = 1800  # without a finished shard; a hang becomes an error that names the step


# light: some columns, done in the driver at once; images: files are opened, tasks of Ray; model: the same with a model,
# which on GPUs lives in actors, one a GPU
Load = Literal["light", "images", "model"]


class RuntimeProblem(AncdError):
    """Ray cannot be had, or has not what the work needs; one line."""


class Worker(Protocol):
    """Turns a shard into rows. It is pickled to where it runs: models are loaded there, at the first call."""

    @property
    def load(self) -> Load:
        """What its work is like."""

    def __call__(self, shard: Shard) -> Work:
        """The rows of one shard; the same rows for the same shard, whenever and wherever it runs."""


class Progress(Protocol):
    """Whoever shows how far a step is."""

    def total(self, n: int) -> None:
        """The step will handle n units (images, regions, epochs)."""

    def advance(self, n: int) -> None:
        """n units are done."""

    def note(self, text: str) -> None:
        """A word on what goes on."""


@dataclass
class Runtime:
    """The Ray of a job, started when the first step needs it."""

    cpus: int | None = None
    gpus: int | None = None
    in_process_below: int = 64
    address: str | None = None  # None: a Ray of our own; "auto": the Ray that this machine belongs to
    dashboard: bool = False  # Ray's, without which groups of workers within trials leave their places taken
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
        """Whether workers may run on other machines than this one."""
        return self.address is not None

    def start(self) -> None:
        """Starts or joins Ray, once.

        Raises:
            RuntimeProblem: there is no Ray to join.
        """
        if self._started:
            return
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what its C++ core has to say is in Ray's log folder
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without GPUs sees none
        import ray

        if not ray.is_initialized():
            self._init()
            self._mine = True
        self._started = True
        self._quiet_data()

    def _init(self) -> None:
        import ray

        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.address is None:
            options |= {"num_cpus": self.cpus, "num_gpus": self.gpus, "include_dashboard": self.dashboard}
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            with _no_stderr():
                ray.init(address=self.address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RuntimeProblem(f"Ray at {self.address or 'this machine'}: {str(error).splitlines()[0]}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own, which ends with a stack trace

    def devices(self) -> tuple[int, int]:
        """Whole CPUs and GPUs that Ray has in all."""
        self.start()
        import ray

        have = ray.cluster_resources()
        return int(have.get("CPU", 0)), int(have.get("GPU", 0))

    def map_shards(self, worker: Worker, shards: Sequence[Shard], folder: Folder, progress: Progress) -> list[Done]:
        """All shards done and committed, those of an interrupted run not again; in the order of the shards."""
        done = finished_shards(folder)
        progress.total(sum(shard.rows for shard in shards))
        progress.advance(sum(shard.rows for shard in shards if shard.index in done))
        todo = [shard for shard in shards if shard.index not in done]
        few = sum(shard.rows for shard in shards) < self.in_process_below
        alone = worker.load == "light" or (few and not (self.is_remote and self.devices()[1]))  # GPUs are elsewhere
        for finished in self._alone(worker, todo, folder) if alone else self._on_ray(worker, todo, folder):
            done[finished.index] = finished
            progress.advance(next(shard.rows for shard in todo if shard.index == finished.index))
        return [done[shard.index] for shard in shards]

    def _alone(self, worker: Worker, shards: Sequence[Shard], folder: Folder) -> Iterator[Done]:
        for shard in shards:
            yield _do(worker, shard, folder)

    def _on_ray(self, worker: Worker, shards: Sequence[Shard], folder: Folder) -> Iterator[Done]:
        if not shards:
            return
        cpus, gpus = self.devices()
        if cpus < 1:
            raise RuntimeProblem("Ray has no whole CPU for the work; start a node with CPUs or raise resources.cpus")
        import ray

        items = [{"shard": shard.index} for shard in shards]
        # A task costs some 50 ms of a core and is what progress advances by: a few a core, more where they are long.
        blocks = max(BLOCKS_A_CORE * cpus, sum(shard.rows for shard in shards) // ROWS_A_BLOCK)
        dataset = ray.data.from_items(items, override_num_blocks=min(len(items), blocks))
        task = _ShardTask(worker, {shard.index: shard for shard in shards}, folder)
        if worker.load == "model" and gpus:
            # from_items holds its blocks already: no read task competes with the actors, so they may take every CPU
            compute = ray.data.ActorPoolStrategy(size=min(len(shards), gpus))
            mapped = dataset.map(_ShardActor, fn_constructor_args=(task,), compute=compute, num_cpus=1, num_gpus=1)
        else:  # Ray reuses the processes of tasks, for the next step too, and with them the model that they have loaded
            mapped = dataset.map(task, num_cpus=1)
        for row in mapped.iter_rows():
            finished = finished_shard(folder, int(row["shard"]))
            assert finished is not None, "a shard is committed before its row comes back"
            yield finished

    @staticmethod
    def _quiet_data() -> None:
        """Progress is ours to show, and an execution that hangs is to end."""
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.verbose_progress = False
        if hasattr(context, "execution_no_progress_timeout_s"):
            context.execution_no_progress_timeout_s = STALLED_AFTER_S
        logging.getLogger("ray.data").setLevel(logging.ERROR)


@dataclass(frozen=True)
class _ShardTask:
    """The function that Ray Data maps over shard numbers."""

    worker: Worker
    shards: dict[int, Shard]
    folder: Folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = self.shards[int(row["shard"])]
        if finished_shard(self.folder, shard.index) is None:  # Ray may run a task twice; the first commit stands
            _do(self.worker, shard, self.folder)
        return {"shard": shard.index}


class _ShardActor:
    """The same in a process that keeps the worker's model."""

    def __init__(self, task: _ShardTask) -> None:
        self._task = task

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return self._task(row)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Silences the process below Python: Ray's core announces there what it was told by environment variables."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _do(worker: Worker, shard: Shard, folder: Folder) -> Done:
    start = time.perf_counter()
    work = worker(shard)
    return commit_shard(folder, shard.index, work, round(time.perf_counter() - start, 3))
