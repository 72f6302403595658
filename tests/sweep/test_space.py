"""What a sweep costs is read off the fingerprints; what cannot work is said before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.jobs.plan import make
from ancd_ray.jobs.sweep.planning import build_search_space

SweepOf = Callable[..., Job]


def test_a_trial_is_a_training_and_merging_costs_none(small_sweep: SweepOf, tmp_path: Path) -> None:
    space = build_search_space(small_sweep(tmp_path))
    assert space.trained == ["train.lambda"]
    assert space.merged == ["merge.tau_alpha"]
    assert space.counts() == {"detections": (3, 0), "view banks": (3, 0), "trainings": (4, 0)}
    assert [settings for settings, _ in space.merges["tile"]] == [{"merge.tau_alpha": t} for t in (10, 50, 100)]
    text = "\n".join(space.forecast())
    assert "4 trials × 3 settings of merging = 12 settings" in text
    assert "3 detections" in text
    assert "4 trainings" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "values", "touches", "counts"),
    [
        ("merge.rule", ["paper", "area"], "merge", (3, 3, 2)),
        ("train.mu", [1, 4], "train", (3, 3, 4)),
        ("train.views.bank", [2, 3], "views", (3, 5, 4)),
        ("mebin.padding", [0.1, 0.2], "regions", (3, 6, 4)),
        ("train.views.base", [2, 3], "views", (3, 4, 4)),
    ],
)
def test_each_key_redoes_what_depends_on_it(
    small_sweep: SweepOf, tmp_path: Path, key: str, values: list[object], touches: str, counts: tuple[int, ...]
) -> None:
    space = build_search_space(small_sweep(tmp_path, parameters={key: {"grid": values}}))
    assert space.touches == {key: touches}
    assert tuple(all_ for all_, _ in space.counts().values()) == counts


def test_draws_are_the_same_every_time(small_sweep: SweepOf, tmp_path: Path) -> None:
    parameters = {"train.lambda": {"uniform": [0, 1]}, "train.lr": {"loguniform": [1e-3, 1e-1]}}
    job = small_sweep(tmp_path, parameters=parameters, search="random", trials=5)
    first, again = build_search_space(job), build_search_space(job)
    assert [trial.id for trial in first.trials] == [trial.id for trial in again.trials]
    assert len({trial.id for trial in first.trials}) == 10
    assert all(1e-3 <= trial.settings["train.lr"] <= 1e-1 for trial in first.trials)


def test_a_continuous_range_of_merging_is_spread_evenly(small_sweep: SweepOf, tmp_path: Path) -> None:
    parameters = {"train.lambda": {"grid": [0.1]}, "merge.tau_alpha": {"loguniform": [10, 1000]}}
    values = build_search_space(small_sweep(tmp_path, parameters=parameters)).values["merge.tau_alpha"]
    assert (values[0], values[12], values[-1]) == (10, 100, 1000)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"parameters": {"train.lamda": {"grid": [0.1]}}}, "train.lamda: unknown key; did you mean 'lambda'?"),
        ({"parameters": {"train.lambda": {"grid": [0.1, 3]}}}, "sweep.parameters.train.lambda: input should be less"),
        ({"parameters": {"data.root": {"grid": ["/x", "/y"]}}}, "sweep.parameters.data.root: data is the same for all"),
        ({"parameters": {"train.workers": {"grid": [1, 2]}}}, "sweep.parameters.train.workers: changes no result"),
        ({"parameters": {"train.lambda": {"uniform": [0, 1]}}}, "a grid takes no continuous range"),
        ({"products": ["tlie"]}, "sweep.products: no product 'tlie'; there are tile"),
        ({"trials": 1}, "sweep.trials=1: the grid has 2 trainings"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line(
    small_sweep: SweepOf, tmp_path: Path, section: dict[str, object], said: str
) -> None:
    with pytest.raises(JobError) as error:
        build_search_space(small_sweep(tmp_path, **section))
    (line,) = error.value.lines
    assert said in line


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"parameters": {"train.lambda": {"grid": []}}}, "sweep.parameters.train.lambda.grid: the range is empty"),
        ({"parameters": {"train.lambda": {"uniform": [1, 0]}}}, "uniform: the range is empty"),
        ({"parameters": {"train.lambda": {"loguniform": [0, 1]}}}, "above 0"),
        ({"parameters": {"train.lambda": {"gird": [0.1]}}}, "give one of grid, choice, uniform, loguniform"),
        ({"metric": "nim"}, "sweep.metric"),
        ({"metrics": "nmi"}, "sweep.metrics: unknown key; did you mean 'metric'?"),
    ],
)
def test_a_section_that_is_wrong_is_one_line(
    small_sweep: SweepOf, tmp_path: Path, section: dict[str, object], said: str
) -> None:
    with pytest.raises(JobError) as error:
        small_sweep(tmp_path, **section)
    (line,) = error.value.lines
    assert said in line


def test_a_metric_that_needs_labels(small_sweep: SweepOf, tmp_path: Path) -> None:
    products = "data.products=[{name: p, layout: folder, path: tile/test}]"
    maps = ["detector={name: patchcore}", "data.products.0.normals=good", "classes.novel=4"]
    job = small_sweep(tmp_path, products, *maps)
    assert build_search_space(job).metric == "unsupervised"
    with pytest.raises(JobError, match=r"sweep.metric=ari needs labels, and product p has none"):
        build_search_space(small_sweep(tmp_path, products, *maps, metric="ari"))


def test_a_range_can_be_changed_on_the_command_line(small_sweep: SweepOf, tmp_path: Path) -> None:
    job = small_sweep(tmp_path, "sweep.parameters.train.lambda={grid: [0.5]}")
    assert job.sweep is not None
    assert job.sweep.parameters["train.lambda"].grid == (0.5,)
    assert set(job.sweep.parameters) == {"train.lambda", "merge.tau_alpha"}


def test_overrides_of_a_product_are_for_it_alone(small_sweep: SweepOf, tmp_path: Path) -> None:
    plain = make(small_sweep(tmp_path))
    own = make(small_sweep(tmp_path, "data.products.0.overrides={train.lambda: 0.7, merge.tau_alpha: 20}"))
    assert own.products[0].job.train.lambda_ == 0.7
    prints = [[step.fingerprint for step in plan.products[1].flow.steps] for plan in (plain, own)]
    assert prints[0] == prints[1]
    before, after = ({step.name: step.fingerprint for step in plan.products[0].flow.steps} for plan in (plain, own))
    changed = [name for name, fingerprint in after.items() if fingerprint != before[name]]
    assert changed == ["train", "select_head", "classify", "merge", "evaluate"]
    for override, said in (("train.lamda: 1", "did you mean 'lambda'"), ("train.lambda: 7", "less than or equal to 1")):
        with pytest.raises(JobError) as error:
            make(small_sweep(tmp_path, f"data.products.1.overrides={{{override}}}"))
        assert error.value.lines[0].startswith("data.products.1.overrides.train.")
        assert said in error.value.lines[0]
