"""Search by Optuna: the next settings are chosen when a trial can start, based on the results so far."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from typing import Any

import optuna

from ancd_ray.config.load import JobError
from ancd_ray.jobs.sweep.space import Settings, Space
from ancd_ray.jobs.sweep.trial import Record, Task


class OptunaSearch:
    """One TPE study per product, in turn; trials of earlier runs are added to the studies at the start.

    Parameters
    ----------
    space
        The search space.
    ended
        Records of trials of earlier runs.
    hopeless
        Ids of trials of products that cannot be trained; these products get no trials.
    """

    def __init__(self, space: Space, ended: Iterable[Record], hopeless: Collection[str]) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._space = space
        names = [plan.name for plan in space.plan.products]
        gone = {id_.rpartition("-")[0] for id_ in hopeless}
        self._left = {name: space.sweep.draws for name in names if name not in gone}
        self._studies = {name: self._make_study() for name in self._left}
        self._open: dict[str, tuple[str, int]] = {}
        self._known: dict[str, float | None] = {}
        for record in ended:
            if record.product in self._left:
                self._learn(record)

    @property
    def n_left(self) -> int:
        """Maximum number of trials that are left."""
        return sum(self._left.values())

    def __next__(self) -> Task:
        while self.n_left:
            product = max(self._left, key=self._left.__getitem__)
            self._left[product] -= 1
            study = self._studies[product]
            asked = study.ask(self._make_distributions())
            try:
                trial = self._space.trial(product, self._decode_settings(asked.params))
            except JobError:  # settings that are invalid in combination
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
                continue
            if trial.id in self._known:
                self._tell(product, asked.number, self._known[trial.id])
                continue
            self._open[trial.id] = (product, asked.number)
            self._known[trial.id] = None
            return self._space.task(trial)
        raise StopIteration

    def on_trial_end(self, task: Task, value: float | None) -> None:
        """Report the value of a trial to the study of its product."""
        self._known[task.id] = value
        self._tell(*self._open.pop(task.id), value)

    def _make_study(self) -> Any:
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
                params=self._encode_settings(record.settings), distributions=self._make_distributions(), value=value
            )
            self._studies[record.product].add_trial(trial)

    def _make_distributions(self) -> dict[str, Any]:
        """Return the distributions of the keys; lists of numbers are searched by index, which keeps their order."""
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

    def _decode_settings(self, params: Settings) -> dict[str, Any]:
        return {
            key: value if self._space.sweep.parameters[key].values is None else self._space.values[key][value]
            for key, value in params.items()
        }

    def _encode_settings(self, settings: Settings) -> dict[str, Any]:
        return {
            key: value if self._space.sweep.parameters[key].values is None else self._space.values[key].index(value)
            for key, value in settings.items()
        }
