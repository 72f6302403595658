"""Where Tune and a sweep meet: what it asks for the next trial, and who hears of the end of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ancd_ray.engine.runtime import Progress
from ancd_ray.jobs.sweep.trial import Record, Task

CLARITY = "clarity"  # what ASHA compares: the negative of how vague the classes are, in every epoch
VALUE = "value"  # what a search is told: the best of the metric over the settings of merging
EPOCH = "epoch"


class Proposals(Protocol):
    """Where the next trial comes from."""

    def __next__(self) -> Task:
        """The next one; StopIteration when there is none."""

    def told(self, task: Task, value: float | None) -> None:
        """A trial has ended with a value, or with none."""


@dataclass
class Listed:
    """Trials that are known beforehand."""

    tasks: Iterator[Task]

    def __next__(self) -> Task:
        return next(self.tasks)

    def told(self, task: Task, value: float | None) -> None:
        """Changes nothing."""


def searcher(proposals: Proposals) -> Any:
    """Tune's side of proposals."""
    from ray.tune.search import Searcher

    class Asks(Searcher):  # type: ignore[misc]
        """Hands out tasks and hears of their ends."""

        def __init__(self) -> None:
            super().__init__(metric=VALUE, mode="max")
            self._tasks: dict[str, Task] = {}

        def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **_: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            try:
                self._tasks[trial_id] = next(proposals)
            except StopIteration:
                return Searcher.FINISHED
            return {"task": self._tasks[trial_id]}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            values = (result or {}).get("values") or {}
            task = self._tasks.pop(trial_id, None)
            if task:
                proposals.told(task, values.get(task.metric))

        def save(self, checkpoint_path: str) -> None:
            """Nothing is kept: see the module."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing was kept."""

    return Asks()


def recorder(progress: Progress, deadline: float | None) -> Any:
    """Counts trials, and leaves a record of those that did not live to leave their own."""
    from ray.tune import Callback

    class Recorder(Callback):  # type: ignore[misc]
        """Hears of the end of every trial."""

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            task, last = trial.config["task"], trial.last_result or {}
            if not last.get("record"):
                if deadline is not None and time.monotonic() >= deadline:
                    return  # the next run goes on with it
                reason = f"stopped by asha after epoch {last.get(EPOCH, 0)} of {task.epochs}: its classes were vaguer"
                seconds = round(float(last.get("time_total_s", 0.0)), 2)
                Record(task.id, task.product, task.settings, "stopped", reason, seconds).write(task.records)
            progress.note(f"{task.product} {_said(task.settings)}: {last.get('record', 'stopped')}")
            progress.advance(1)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            task = trial.config["task"]
            reason = _last_line(trial.get_error())
            Record(task.id, task.product, task.settings, "failed", reason).write(task.records)
            progress.advance(1)

    return Recorder()


def _said(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in settings.items())


def _last_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error or "its worker has died").splitlines() if line.strip()]
    return lines[-1][:300]
