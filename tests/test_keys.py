"""Keys of the job file that were renamed, that have no effect, and paths that lead out of the archive's root."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError
from ancd_ray.config.renamed import RenamedKeyWarning
from ancd_ray.config.schema import job_schema
from ancd_ray.jobs.plan import make
from tests.conftest import REPO

MakeJob = Callable[..., Job]


def _fingerprints(job: Job) -> list[str]:
    return [step.fingerprint for step in make(job).steps]


def test_old_names_are_read_with_a_warning(small_job: MakeJob, tmp_path: Path) -> None:
    with pytest.warns(RenamedKeyWarning, match=r"detector\.contrast is now called map_gamma"):
        job = small_job(tmp_path, "detector.contrast=1.5")
    assert job.detector.model_dump()["map_gamma"] == 1.5
    with pytest.warns(RenamedKeyWarning, match="color_normalization"):
        assert small_job(tmp_path, "backbone.levels=centred").backbone.color_normalization == "centred"
    with pytest.warns(RenamedKeyWarning, match=r"data\.products\.0\.overrides"):
        job = small_job(tmp_path, "data.products.0.overrides={classes.at_most: 5}")
    assert job.data.products[0].overrides == {"classes.max_classes": 5}
    with pytest.raises(JobError, match="keep one"):
        small_job(tmp_path, "detector.contrast=1.5", "detector.map_gamma=1.5")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (("data.base=null",), "train.lambda=0.9"),
        (("data.base=null", "train.start=random"), "train.regularize=novel"),
        ((), "train.regularize=novel"),  # classes are drawn to the sizes that they start from
        (("train.start=random",), "discovery.symmetry=none"),
        (("discovery.method=ward",), "backbone.ring=0.25"),
        ((), "backbone.ring=0.5"),
        (("merge.rule=average",), "merge.tau_alpha=7"),
        (("mebin.binarize=otsu",), "mebin.levels=32"),
        (("detector={name: ground_truth}",), "mebin.keep=all"),
        ((), "backbone.mask_layers=3"),
        ((), "train.workers=2"),
    ],
)
def test_a_key_without_effect_changes_no_fingerprint(
    small_job: MakeJob, tmp_path: Path, settings: tuple[str, ...], key: str
) -> None:
    assert _fingerprints(small_job(tmp_path, *settings)) == _fingerprints(small_job(tmp_path, *settings, key))


def test_keys_that_the_method_does_not_read_are_told(small_job: MakeJob, tmp_path: Path) -> None:
    def read_first(*overrides: str) -> str:
        return make(small_job(tmp_path, *overrides)).describe_inputs()[0]

    unread = read_first("discovery.method=spectral", "train.lambda=0.5", "train.seed=3")
    assert unread.startswith("train.batch_size, train.epochs, train.lambda, train.views, data.base: not read by")
    assert read_first("discovery.method=semi_kmeans").startswith(
        "train.batch_size, train.epochs, train.views: not read"
    )
    assert read_first("discovery.method=gcd", "train.mu=1").startswith("train.mu: not read by discovery.method=gcd")
    assert "not read by" not in read_first("discovery.method=anomalyncd")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ((), "train.lambda=0.9"),
        (("train.start=random",), "train.regularize=novel"),
        ((), "discovery.symmetry=none"),
        (("train.start=random",), "backbone.ring=0.5"),
        ((), "merge.tau_alpha=7"),
        ((), "mebin.levels=32"),
    ],
)
def test_the_same_key_with_effect_changes_them(
    small_job: MakeJob, tmp_path: Path, settings: tuple[str, ...], key: str
) -> None:
    assert _fingerprints(small_job(tmp_path, *settings)) != _fingerprints(small_job(tmp_path, *settings, key))


def test_an_absolute_path_is_taken_as_it_is(small_job: MakeJob, demo_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    root.mkdir()
    (root / "tile").symlink_to(demo_root / "tile")
    base = f"data.base={{name: base, layout: mvtec, path: {demo_root}/base}}"
    plan = make(small_job(tmp_path / "out", f"data.root={root}", base))
    assert plan.products[0].classes.n_base == 3


def test_the_schema_beside_the_job_files_is_that_of_today() -> None:
    folder = REPO / "jobs"
    schema = json.loads((folder / "job.schema.json").read_text())
    assert schema == job_schema(), "record it: ancd-ray schema > jobs/job.schema.json"
    for file in sorted(folder.glob("*.yaml")):
        assert file.read_text().startswith("# yaml-language-server: $schema=job.schema.json\n"), file
        document = yaml.safe_load(file.read_text())
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    wrong = {**document, "train": {"lamda": 0.3}}
    with pytest.raises(jsonschema.ValidationError, match="lamda"):
        jsonschema.validate(wrong, schema, cls=jsonschema.Draft202012Validator)
