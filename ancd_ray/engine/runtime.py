"""Ray: started when it is first needed, and the choice between this process and its workers."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ancd_ray.config.errors import AncdError
from ancd_ray.engine.calls import Call, Ended, Resources, run_here, run_on_ray

STALLED_AFTER_S = 1800  # without a finished shard: the execution fails instead of hanging


class RuntimeProblem(AncdError):
    """Ray is unavailable or lacks the required resources; the message is one line."""


@dataclass
class Runtime:
    """Runs calls; Ray is started when a call first needs it."""

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

    @property
    def is_started(self) -> bool:
        """Whether Ray runs, and costs no start."""
        return self._started

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

    def run(self, calls: Sequence[Call]) -> Iterator[Ended]:
        """Run calls, here if they are few or light and otherwise on Ray; yields how each of them ended.

        Raises
        ------
        RuntimeProblem
            Ray is unavailable, or has no CPU.
        """
        if self.stays_here(sum(call.rows for call in calls), [call.resources for call in calls]):
            return run_here(calls)
        cpus, gpus = self.devices()
        if cpus < 1:
            raise RuntimeProblem("Ray has no whole CPU for the work; start a node with CPUs or raise resources.cpus")
        return run_on_ray(calls, cpus, gpus)

    def stays_here(self, rows: int, resources: Iterable[Resources]) -> bool:
        """Whether work on so many images is done in this process, given what each piece of it needs."""
        kinds = set(resources)
        if kinds <= {"light"}:
            return True
        is_few = rows < self.in_process_below
        return is_few and not (self.is_remote and "model" in kinds and self.devices()[1])  # GPUs may be remote

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
