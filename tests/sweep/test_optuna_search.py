"""Search by Optuna: it asks within the budget, learns from what ended, and repeats nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ancd_ray.config.job import Job
from ancd_ray.jobs.sweep.planning import build_search_space
from ancd_ray.jobs.sweep.trial import Record, Task

pytest.importorskip("optuna")

PARAMETERS = {
    "train.lambda": {"uniform": [0, 1]},
    "train.heads": {"grid": [1, 2, 4]},
    "train.temperatures": {"choice": ["released", "paper"]},
    "merge.tau_alpha": {"grid": [10, 100]},
}


def _value(task: Task) -> float:
    return 1 - abs(task.settings["train.lambda"] - 0.8)


def _record(task: Task) -> Record:
    figures = dict.fromkeys(("nmi", "ari", "f1", "unsupervised"), _value(task))
    rows = [{"settings": dict(settings), "figures": figures} for settings, _ in task.merges]
    return Record(task.id, task.product, task.settings, "done", rows=rows)


def _ask(asking: Any, n: int) -> list[Task]:
    tasks = []
    for _ in range(n):
        tasks.append(next(asking))
        asking.on_trial_end(tasks[-1], _value(tasks[-1]))
    return tasks


@pytest.fixture
def space(small_sweep: Callable[..., Job], tmp_path: Path) -> Any:
    return build_search_space(small_sweep(tmp_path, parameters=PARAMETERS, search="optuna", trials=30))


def test_it_comes_nearer_within_its_budget(space: Any) -> None:
    from ancd_ray.jobs.sweep.optuna_search import OptunaSearch

    asking = OptunaSearch(space, [], [])
    assert asking.n_left == space.n_trials == 60
    tasks = _ask(asking, 60)
    with pytest.raises(StopIteration):
        next(asking)
    assert len({task.id for task in tasks}) == 60
    mine = [_value(task) for task in tasks if task.product == "tile"]
    assert len(mine) == 30
    assert sum(mine[-10:]) > sum(mine[:10])
    assert {task.settings["train.heads"] for task in tasks} <= {1, 2, 4}


def test_a_second_run_goes_on_where_the_first_was(space: Any) -> None:
    from ancd_ray.jobs.sweep.optuna_search import OptunaSearch

    first = _ask(OptunaSearch(space, [], []), 40)
    second = OptunaSearch(space, [_record(task) for task in first], [])
    assert second.n_left == 20
    assert not {task.id for task in _ask(second, 20)} & {task.id for task in first}


def test_a_product_that_cannot_be_trained_is_not_asked_for(space: Any) -> None:
    from ancd_ray.jobs.sweep.optuna_search import OptunaSearch

    asking = OptunaSearch(space, [], ["tile-0123456789abcdef"])
    assert asking.n_left == 30
    assert {task.product for task in _ask(asking, 30)} == {"other"}
