"""Search by Optuna: what to try next is asked for when there is room for a trial, in the light of those that ended."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from typing import Any

import optuna

from ancd_ray.config.load import JobError
from ancd_ray.jobs.sweep.space import Settings, Space
from ancd_ray.jobs.sweep.trial import Record, Task


class Asking:
    """A study a product (TPE), the products in turn; trials that ended in an earlier run have taught it already."""

    def __init__(self, space: Space, ended: Iterable[Record], hopeless: Collection[str]) -> None:
        """`ended`: records of earlier runs; `hopeless`: ids of products' trials that cannot be done."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._space = space
        names = [plan.name for plan in space.plan.products]
        gone = {id_.rpartition("-")[0] for id_ in hopeless}
        self._left = {name: space.sweep.draws for name in names if name not in gone}
        self._studies = {name: self._study() for name in self._left}
        self._open: dict[str, tuple[str, int]] = {}
        self._known: dict[str, float | None] = {}
        for record in ended:
            if record.product in self._left:
                self._learn(record)

    @property
    def n_left(self) -> int:
        """Trials that it will ask for, at most."""
        return sum(self._left.values())

    def __next__(self) -> Task:
        while self.n_left:
            product = max(self._left, key=self._left.__getitem__)
            self._left[product] -= 1
            study = self._studies[product]
            asked = study.ask(self._distributions())
            try:
                trial = self._space.trial(product, self._settings(asked.params))
            except JobError:  # settings that do not go together
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
                continue
            if trial.id in self._known:
                self._tell(product, asked.number, self._known[trial.id])
                continue
            self._open[trial.id] = (product, asked.number)
            self._known[trial.id] = None
            return self._space.task(trial)
        raise StopIteration

    def told(self, task: Task, value: float | None) -> None:
        """A trial has ended."""
        self._known[task.id] = value
        self._tell(*self._open.pop(task.id), value)

    def _study(self) -> Any:
        sampler = optuna.samplers.TPESampler(
            seed=self._space.sweep.seed, n_startup_trials=max(2, min(10, self._space.sweep.draws // 3))
        )
        return optuna.create_study(direction="maximize", sampler=sampler)

    def _tell(self, product: str, number: int, value: float | None) -> None:
        state = optuna.trial.TrialState.COMPLETE if value is not None else optuna.trial.TrialState.FAIL
        self._studies[product].tell(number, value, state=state)

    def _learn(self, record: Record) -> None:
        self._left[record.product] = max(0, self._left[record.product] - 1)
        value = record.best(self._space.metric)
        self._known[record.id] = value
        if value is not None:
            trial = optuna.trial.create_trial(
                params=self._params(record.settings), distributions=self._distributions(), value=value
            )
            self._studies[record.product].add_trial(trial)

    def _distributions(self) -> dict[str, Any]:
        """Lists are drawn by place, so that neighbours in a list of numbers are neighbours to the search."""
        found: dict[str, Any] = {}
        for key in self._space.trained:
            range_, values = self._space.sweep.parameters[key], self._space.values[key]
            if range_.values is None:
                low, high = range_.uniform or range_.loguniform or (0.0, 0.0)
                found[key] = optuna.distributions.FloatDistribution(low, high, log=range_.loguniform is not None)
            elif all(isinstance(value, int | float) for value in values):
                found[key] = optuna.distributions.IntDistribution(0, len(values) - 1)
            else:
                found[key] = optuna.distributions.CategoricalDistribution(tuple(range(len(values))))
        return found

    def _settings(self, params: Settings) -> dict[str, Any]:
        return {
            key: value if self._space.sweep.parameters[key].values is None else self._space.values[key][value]
            for key, value in params.items()
        }

    def _params(self, settings: Settings) -> dict[str, Any]:
        return {
            key: value if self._space.sweep.parameters[key].values is None else self._space.values[key].index(value)
            for key, value in settings.items()
        }
