"""Hooks of a sweep in Ray Tune: a searcher that suggests trials, and a callback that records their ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ancd_ray.engine.progress import Progress
from ancd_ray.jobs.sweep.trial import Record, Task

CLARITY = "clarity"  # metric of ASHA, reported after every epoch: the negative of `asha_objective`
VALUE = "value"  # metric of a search: the best value over the settings of merging
EPOCH = "epoch"


class Proposals(Protocol):
    """Interface of sources of trials."""

    def __next__(self) -> Task:
        """Return the next task; raise StopIteration if there is none."""

    def on_trial_end(self, task: Task, value: float | None) -> None:
        """Take the value of a trial that has ended; None if it has no figures."""


@dataclass
class FixedTrials:
    """Trials that are known beforehand."""

    tasks: Iterator[Task]

    def __next__(self) -> Task:
        return next(self.tasks)

    def on_trial_end(self, task: Task, value: float | None) -> None:
        """Ignore the result."""


def make_searcher(proposals: Proposals) -> Any:
    """Make the Tune searcher that draws its trials from proposals."""
    from ray.tune.search import Searcher

    class TaskSearcher(Searcher):  # type: ignore[misc]
        """Suggests tasks, and reports the values of finished trials to the proposals."""

        def __init__(self) -> None:
            super().__init__(metric=VALUE, mode="max")
            self._tasks: dict[str, Task] = {}

        def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **_: Any) -> bool:  # noqa: ARG002
            return True

        def suggest(self, trial_id: str) -> Any:
            try:
                self._tasks[trial_id] = next(proposals)
            except StopIteration:
                return Searcher.FINISHED
            return {"task": self._tasks[trial_id]}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:  # noqa: ARG002
            values = (result or {}).get("values") or {}
            task = self._tasks.pop(trial_id, None)
            if task:
                proposals.on_trial_end(task, values.get(task.metric))

        def save(self, checkpoint_path: str) -> None:
            """Do nothing: a sweep resumes from the records of its trials."""

        def restore(self, checkpoint_path: str) -> None:
            """Do nothing."""

    return TaskSearcher()


def make_recorder(progress: Progress, deadline: float | None) -> Any:
    """Make the Tune callback that counts trials, and writes the records of those that were stopped or failed."""
    from ray.tune import Callback

    class Recorder(Callback):  # type: ignore[misc]
        """Is called by Tune when a trial ends."""

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
            task, last = trial.config["task"], trial.last_result or {}
            if not last.get("record"):
                if deadline is not None and time.monotonic() >= deadline:
                    return  # the next run resumes it
                reason = f"stopped by asha after epoch {last.get(EPOCH, 0)} of {task.epochs}: its loss was higher"
                seconds = round(float(last.get("time_total_s", 0.0)), 2)
                Record(task.id, task.product, task.settings, "stopped", reason, seconds).write(task.records)
            progress.note(f"{task.product} {_format_settings(task.settings)}: {last.get('record', 'stopped')}")
            progress.advance(1)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
            task = trial.config["task"]
            reason = _last_line(trial.get_error())
            Record(task.id, task.product, task.settings, "failed", reason).write(task.records)
            progress.advance(1)

    return Recorder()


def _format_settings(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in settings.items())


def _last_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error or "its worker died").splitlines() if line.strip()]
    return lines[-1][:300]
