"""Job files: defaults, overrides, variables, and errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ancd_ray.config.load import JobError, dump_resolved, load, validate

JOBS = Path(__file__).resolve().parents[1] / "jobs"


def _document(**more: Any) -> dict[str, Any]:
    return {
        "name": "a",
        "data": {"root": "/archive", "products": [{"name": "p", "layout": "mvtec", "path": "p"}]},
        "detector": {"name": "patchcore"},
        **more,
    }


@pytest.mark.parametrize("file", sorted(JOBS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_job_of_the_repository_is_valid(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANCD_DATA", "ANCD_OUTPUT"):
        monkeypatch.setenv(name, "/archive")
    job = load(file)
    assert load_text(dump_resolved(job)) == job, "the resolved job is a job file that means the same"


def load_text(text: str) -> Any:
    import yaml

    return validate(yaml.safe_load(text))


def test_overrides_are_yaml() -> None:
    job = validate(
        _document(),
        [
            "train.lambda=0.5",
            "data.products.0.exclude=[good]",
            "train.views={fresh: true}",
            "data.base=null",
            "train.lr=1e-3",
        ],
    )
    assert job.train.lambda_ == 0.5
    assert job.data.products[0].exclude == ("good",)
    assert job.train.views.fresh
    assert job.data.base is None
    assert job.train.lr == 1e-3, "YAML reads 1e-3 as text; the number is meant"


def test_another_detector_leaves_the_keys_of_the_old_one_behind() -> None:
    document = _document(detector={"name": "patchcore", "coreset": 10})
    assert validate(document, ["detector.name=ground_truth"]).detector.name == "ground_truth"


def test_products_can_be_replaced_as_a_whole() -> None:
    job = validate(_document(), ["data.products=[{name: b, layout: folder, path: b}]"])
    assert [product.name for product in job.data.products] == ["b"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"trian": {}}, "trian: unknown key; did you mean 'train'?"),
        ({"train": {"epoch": 3}}, "train.epoch: unknown key; did you mean 'epochs'?"),
        ({"train": {"epochs": 0}}, "train.epochs: input should be greater than 0, not 0"),
        ({"detector": {"name": "patchcor"}}, "detector.name: 'patchcor' is unknown; did you mean 'patchcore'?"),
        ({"detector": None}, "detector"),
        ({"train": {"views": {"bank": 8, "fresh": True}}}, "train.views: give either `bank: 8`"),
    ],
)
def test_an_error_is_one_line_that_names_the_key(more: dict[str, Any], expected: str) -> None:
    with pytest.raises(JobError) as error:
        validate(_document(**more))
    (line,) = error.value.lines
    assert expected in line


def test_all_errors_come_at_once() -> None:
    with pytest.raises(JobError) as error:
        validate(
            {"name": "a", "data": {"root": "/x", "products": []}, "detector": {"name": "x"}, "extra": 1}, ["nonsense"]
        )
    assert len(error.value.lines) >= 4


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE", "/from/env")
    data = {"root": "${ARCHIVE}/x", "products": [{"name": "p", "layout": "folder", "path": "${SUB:-here}"}]}
    job = validate({**_document(), "data": data})
    assert job.data.root == "/from/env/x"
    assert job.data.products[0].path == "here"
    monkeypatch.delenv("ARCHIVE")
    with pytest.raises(JobError, match=r"data.root: the environment variable ARCHIVE is not set"):
        validate({**_document(), "data": data})


@pytest.mark.parametrize("text", ["a: [", "- a", ""])
def test_a_file_that_is_no_job_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(JobError) as error:
        load(file)
    assert str(file) in error.value.lines[0]


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_secrets_of_uris_are_hidden_in_the_resolved_job() -> None:
    job = validate(_document(tracking={"uri": "https://user:secret@host/mlflow"}))
    assert "secret" not in dump_resolved(job)
