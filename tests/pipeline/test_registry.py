"""The registry of models: registered once, with a card; champion and back; what is wrong is told in one line."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape as escape_html
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner, Result

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, validate
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from ancd_ray.jobs.identity import edits
from ancd_ray.jobs.tracking.card import COLUMNS, make_card
from ancd_ray.jobs.tracking.markdown import escape, to_text
from tests.conftest import Ran

RunJob = Callable[[Job], Ran]
HOSTILE = "<img src=x onerror=alert(1)> | [a](javascript:b) \x1b[31m"


@dataclass(frozen=True)
class Plant:
    """Two runs over one archive; the second registers its model itself."""

    output: Path
    first: Folder
    second: Folder
    job: Job  # of the second

    def invoke(self, *arguments: object) -> Result:
        """Call `ancd-ray models` on its registry."""
        return _invoke(*arguments, "--output", self.output)

    def client(self) -> Any:
        """MLflow's client of its registry."""
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.output}/mlflow.db")


def _invoke(*arguments: object, **environment: str) -> Result:
    return CliRunner(env={"MLFLOW_TRACKING_URI": "", **environment}).invoke(main, ["models", *map(str, arguments)])


def _say(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def _explain(result: Result) -> str:
    """Check that a command failed with one line, and return it."""
    assert result.exit_code, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.lower().startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == lines[0]
    assert "unforeseen" not in lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def plant(clustered: tuple[Job, Ran], run_job: RunJob, tmp_path_factory: pytest.TempPathFactory) -> Plant:
    job, run = clustered
    output = tmp_path_factory.mktemp("registry") / "out"
    shutil.copytree(job.output_root, output, ignore=shutil.ignore_patterns("mlflow*"))
    document = {
        **job.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "discovery": {"method": "kmeans"},
        "tracking": {"register": {"name": "{product}", "alias": "candidate"}},
        "output": str(output),
    }
    second = validate(document)
    ran = run_job(second)
    return Plant(output, Folder(str(output / "runs" / run.folder.path.name)), ran.folder, second)


def test_a_run_is_registered_once_with_a_card(plant: Plant, tmp_path: Path) -> None:
    said = {_say(_invoke("register", plant.first, "--name", "once", "--alias", "line-1")) for _ in range(2)}
    assert said == {f"models:/once/1 @line-1 in sqlite:///{plant.output}/mlflow.db\n"}
    client = plant.client()
    (version,) = client.search_model_versions("name = 'once'")
    assert version.tags["product"] == "tile"
    assert json.loads(version.tags["classes"])[0][0] == "normal"
    assert 0 < float(version.tags["nmi"]) <= 1
    files = {file.path for file in client.list_artifacts(version.run_id)}
    assert {"card.md", "card", "model"} <= files
    card = Path(client.download_artifacts(version.run_id, "card.md", str(tmp_path))).read_text()
    pictures = {file.path for file in client.list_artifacts(version.run_id, "card")}
    assert pictures
    assert all(f"]({path})" in card for path in pictures)
    assert len([path for path in pictures if path.startswith("card/class-1-")]) == 3
    first = Path(client.download_artifacts(version.run_id, min(pictures), str(tmp_path)))
    assert first.read_bytes().startswith(b"\x89PNG")
    for text in (card, version.description, _say(plant.invoke("show", "once@line-1"))):
        for part in ("25 images", "NMI", "ARI", "## Classes", "the mask of each image", "backbone lite", "torch"):
            assert part in text
    assert "](card/" not in version.description, "there it would be a broken picture"


def test_the_key_of_a_job_registers_once_and_takes_no_alias_back(plant: Plant, run_job: RunJob) -> None:
    client = plant.client()
    client.set_registered_model_alias("tile", "kept", "1")
    client.delete_registered_model_alias("tile", "candidate")
    run_job(plant.job)
    (version,) = client.search_model_versions("name = 'tile'")
    assert list(client.get_registered_model("tile").aliases) == ["kept"], "somebody has taken the other one away"
    _say(_invoke("register", plant.second, "--alias", "candidate"))
    assert set(client.get_registered_model("tile").aliases) == {"kept", "candidate"}
    client.delete_registered_model_alias("tile", "kept")
    assert version.tags["method"] == "kmeans"


def test_the_key_is_added_to_a_job_whose_archive_is_larger_than_its_sample(plant: Plant, run_job: RunJob) -> None:
    """The classes are not discovered again then, and the run is registered all the same."""
    discovery = plant.job.discovery.model_copy(update={"max_regions": 15})
    job = plant.job.model_copy(update={"name": "sampled", "discovery": discovery})
    for asked in (None, plant.job.tracking.register_, plant.job.tracking.register_):
        tracked = job.tracking.model_copy(update={"register_": asked and asked.model_copy(update={"name": "sampled"})})
        run_job(job.model_copy(update={"tracking": tracked}))
    (version,) = plant.client().search_model_versions("name = 'sampled'")
    assert version.tags["images"] == "15"
    assert "at most 15 images" in version.description


def test_killed_before_the_alias_is_given(plant: Plant, run_job: RunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = plant.job.tracking.register_
    assert asked
    register = asked.model_copy(update={"name": "killed"})
    job = plant.job.model_copy(update={"tracking": plant.job.tracking.model_copy(update={"register_": register})})
    with monkeypatch.context() as patched:
        patched.setattr("ancd_ray.jobs.tracking.registry.give_alias", lambda *_: 1 / 0)
        run_job(job)  # what MLflow has, or has not, ends no job
        assert not plant.client().get_registered_model("killed").aliases
    run_job(job)
    assert {alias: int(n) for alias, n in plant.client().get_registered_model("killed").aliases.items()} == {
        "candidate": 1
    }


def test_champion_and_back(plant: Plant) -> None:
    def aliases() -> dict[str, int]:
        return {alias: int(number) for alias, number in plant.client().get_registered_model("turns").aliases.items()}

    for run in (plant.first, plant.second):
        _say(_invoke("register", run, "--name", "turns"))
    assert aliases() == {"candidate": 2}
    assert "no version `previous`" in _explain(plant.invoke("rollback", "turns"))
    assert _say(plant.invoke("promote", "turns", "--version", 1)) == "models:/turns/1 is @champion\n"
    for _ in range(2):  # the second time changes nothing
        said = _say(plant.invoke("promote", "turns", "--from", "candidate"))
        assert aliases() == {"candidate": 2, "champion": 2, "previous": 1}
    assert said == "models:/turns/2 is @champion\n"
    listed = _say(plant.invoke("list"))
    assert "candidate=2 champion=2 previous=1" in listed
    assert [line.split()[:3] for line in _say(plant.invoke("list", "turns")).splitlines()[1:]] == [
        ["turns", "2", "candidate"],
        ["turns", "1", "previous"],
    ]
    assert _say(plant.invoke("show", "turns")).startswith("models:/turns/2 ")
    said = _say(plant.invoke("rollback", "turns"))
    assert said == "models:/turns/1 is @champion again; models:/turns/2 was\n"
    assert aliases() == {"candidate": 2, "champion": 1}
    assert "promote turns" in _explain(plant.invoke("rollback", "turns"))
    _say(plant.invoke("promote", "turns", "--version", 2, "--alias", "line-2"))
    assert aliases() == {"candidate": 2, "champion": 1, "line-2": 2}


def test_a_champion_that_is_registered_as_such_has_a_previous_one(plant: Plant) -> None:
    for run in (plant.first, plant.second):
        said = _say(_invoke("register", run, "--name", "direct", "--alias", "champion"))
    assert said.startswith("models:/direct/2 @champion in ")
    assert _say(plant.invoke("rollback", "direct")).startswith("models:/direct/1 is @champion again")


def test_two_models_side_by_side(plant: Plant) -> None:
    _say(_invoke("register", plant.first, "--name", "compared", "--alias", "champion"))
    by_version = _say(plant.invoke("compare", "models:/compared@champion", plant.second))
    by_run = _say(_invoke("compare", plant.first, plant.second))
    tables = [[line.split() for line in said.partition("\n\n")[0].splitlines()] for said in (by_version, by_run)]
    assert tables[0][1:] == tables[1][1:]
    rows = {row[0]: row[1:] for row in tables[1]}
    assert rows["method"] == ["ward", "kmeans"]
    assert len(rows["nmi"]) == 2
    assert "6 regions, mostly crack" in by_run


def test_the_flow_of_regions_between_the_classes_of_two_models(plant: Plant, tmp_path: Path) -> None:
    edits.name_class(Folder(str(plant.output)), "tile-c0001", name := "<script>alert(1)</script>")
    page = tmp_path / "flow.html"
    said = _say(_invoke("compare", plant.first, plant.second, "--html", page))
    rows = [re.split(r"  +", line.strip()) for line in said.partition("\n\n")[2].splitlines()[1:]]
    counts = {(one, other): int(count) for one, other, count in rows}
    assert sum(counts.values()) == sum(len(_read_regions(run)) for run in (plant.first, plant.second)) / 2
    assert any(name in pair for pair in counts)
    html = page.read_text()
    assert '"type":"sankey"' in html
    assert html.count("<script>alert") == 0
    for pair, count in counts.items():
        cells = "".join(f"<td><bdi>{escape_html(own)}</bdi></td>" for own in pair)
        assert f'<tr>{cells}<td class="num">{count}</td></tr>' in html


def test_a_registered_model_whose_run_is_gone_has_no_flow(plant: Plant, tmp_path: Path) -> None:
    _say(_invoke("register", plant.first, "--name", "gone"))
    arguments = (
        "compare",
        "models:/gone",
        plant.second,
        "--output",
        tmp_path,
        "--uri",
        f"sqlite:///{plant.output}/mlflow.db",
    )
    result = _invoke(*arguments)
    assert "ward" in _say(result)
    assert f"no flow of regions: models:/gone: its run {plant.first.path.name} is not there" in result.stderr
    assert "is not there" in _explain(_invoke(*arguments, "--html", tmp_path / "flow.html"))


def _read_regions(run: Folder) -> list[str]:
    return ds.dataset(str(run.path / "region_predictions")).to_table().column("region_id").to_pylist()


def test_without_the_results_of_its_steps(plant: Plant, tmp_path: Path) -> None:
    """A run that is tracked is registered without pictures; one that is not has to be submitted again."""
    output = tmp_path / "out"
    shutil.copytree(plant.output, output, ignore=shutil.ignore_patterns("mlflow*", "steps"))
    run = output / "runs" / plant.first.path.name
    assert "submit the job again" in _explain(_invoke("register", run))
    uri = f"sqlite:///{plant.output}/mlflow.db"
    _say(_invoke("register", plant.first, "--name", "whole"))
    _say(_invoke("register", run, "--name", "bare", "--uri", uri))
    (version,) = plant.client().search_model_versions("name = 'bare'")
    assert "## Classes" in version.description


def test_models_that_cannot_be_registered(plant: Plant, tmp_path: Path) -> None:
    broken = tmp_path / "out" / "runs" / plant.first.path.name
    shutil.copytree(plant.first.path, broken)
    model = broken / "models" / "tile"
    (model / "classifier.safetensors").write_bytes(b"cut off")
    assert "missing or damaged" in _explain(_invoke("register", broken))
    (model / "model.json").write_text("{")
    assert f"{model}: model.json is damaged" in _explain(_invoke("register", broken))
    assert f"{model}: model.json is damaged" in _explain(_invoke("compare", broken, plant.first))
    (model / "model.json").unlink()
    assert "neither a model" in _explain(_invoke("register", broken))
    assert "not a run folder" in _explain(_invoke("register", tmp_path))
    assert "there are tile" in _explain(_invoke("register", plant.first, "--product", "tyle"))
    for option in (("--name", HOSTILE), ("--name", "a/b"), ("--alias", "latest"), ("--alias", "previous")):
        assert option[0] in _explain(_invoke("register", plant.first, *option))


def test_registries_that_are_not_there(plant: Plant, tmp_path: Path) -> None:
    start = time.monotonic()
    away = _explain(_invoke("list", "--uri", "http://me:HUSH@127.0.0.1:9"))
    assert time.monotonic() - start < 30
    assert "http://127.0.0.1:9" in away
    assert "HUSH" not in away
    assert "127.0.0.1:9" in _explain(_invoke("register", plant.first, "--uri", "http://127.0.0.1:9"))
    assert "127.0.0.1:9" in _explain(_invoke("list", MLFLOW_TRACKING_URI="http://127.0.0.1:9"))
    assert "give --output" in _explain(_invoke("rollback", "tile"))
    assert "mlflow.db" in _explain(_invoke("list", "--output", tmp_path))
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "nothing"), "nothing: no model of this name is registered; there are"),
        (("show", "tile/7"), "tile/7: not registered; tile has version 1"),
        (("show", "tile@nobody"), "tile@nobody: not registered"),
        (("show", HOSTILE), "no model of this name"),
        (("show", "it's"), "no model of this name"),
        (("promote", "tile", "--from", "nobody"), "tile@nobody: not registered"),
        (("promote", "tile"), "either --version V or --from ALIAS"),
        (("promote", "tile", "--version", "1", "--alias", "v1"), "--alias"),
        (("compare", "models:/nothing", "models:/tile"), "no model of this name"),
    ],
)
def test_what_is_not_registered(plant: Plant, arguments: tuple[str, ...], said: str) -> None:
    assert said in _explain(plant.invoke(*arguments))


def test_texts_of_users_are_no_markup(plant: Plant) -> None:
    run = tracking.open_discovery(plant.first, None)
    regions = pa.table({"region_id": ["a"], "cls": pa.array([1], pa.int32()), "confidence": [0.5], "label": [HOSTILE]})
    assert tuple(regions.column_names) == COLUMNS
    job = run.job.model_copy(update={"data": run.job.data.model_copy(update={"root": f"/{HOSTILE}"})})
    card = make_card(job, run.name, run.product, run.model, 1, {"nmi": 0.5}, regions)
    for text in (card.write(), card.describe()):
        assert "onerror" in text
        assert "<img" not in text
        assert "[a](" not in text
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if line.startswith("| class 1") and line.count(" | ") != 2]
    assert to_text(escape("a_b <c> & [d](e) | `f` \\")) == "a_b <c> & [d](e) | `f` \\"
    many = replace(card, classes=[replace(card.classes[1], name=f"class {i}", label="x" * 200) for i in range(64)])
    assert len(many.describe()) < 5000
    assert len(many.tags["classes"]) < 5000
    assert "card.md of the run lists them" in many.describe()


def test_without_labels_the_card_says_so(plant: Plant) -> None:
    run = tracking.open_discovery(plant.first, None)
    regions = pa.table({"region_id": ["a"], "cls": [1], "confidence": [0.5], "label": pa.nulls(1, pa.string())})
    figures = {"nmi": None, "ari": None, "f1": None, "silhouette": 0.25}
    card = make_card(run.job, run.name, run.product, run.model, 1, figures, regions)
    assert "have no labels" in card.write()
    assert "silhouette in frozen features: 0.250" in card.write()
    assert "NMI" not in card.write()
    assert card.tags["silhouette"] == "0.2500"
    assert not {"nmi", "ari", "f1"} & set(card.tags)


def test_names_of_the_job_file(clustered: tuple[Job, Ran]) -> None:
    document = clustered[0].model_dump(mode="json", by_alias=True, exclude_unset=True)

    def register(**keys: Any) -> Job:
        return validate({**document, "tracking": {"register": keys}})

    assert register().tracking.register_ is not None
    assert register(name="line-{product}").tracking.register_.name_model("job", "tile") == "line-tile"  # type: ignore[union-attr]
    assert register().tracking.register_.name_model("job", "tile") == "job.tile"  # type: ignore[union-attr]
    for keys, said in (
        ({"name": HOSTILE}, "tracking.register.name"),
        ({"alias": "latest"}, "tracking.register.alias"),
        ({"nam": "x"}, "did you mean 'name'"),
    ):
        with pytest.raises(JobError, match=said):
            register(**keys)
    (tile,) = document["data"]["products"]
    two = {**document, "data": {**document["data"], "products": [tile, {**tile, "name": "other"}]}}
    with pytest.raises(JobError, match="several products would be 'tile'"):
        validate({**two, "tracking": {"register": {"name": "tile"}}})
    with pytest.raises(JobError, match="`mode: classify` makes no model"):
        validate(
            {
                **{key: document[key] for key in ("name", "data")},
                "mode": "classify",
                "model": "models:/tile@champion",
                "tracking": {"register": {}},
            }
        )


@pytest.mark.filterwarnings("ignore:.*Add type hints")
def test_a_registered_model_answers_requests(plant: Plant, demo_root: Path) -> None:
    """The scoring of `mlflow models serve`, without its server: class, confidence and boxes of each image."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    _say(_invoke("register", plant.first, "--name", "served", "--alias", "champion"))
    version = plant.client().get_model_version_by_alias("served", "champion")
    served = mlflow.pyfunc.load_model(version.source)
    mask = next((demo_root / "tile" / "ground_truth" / "hole").iterdir())
    image = demo_root / "tile" / "test" / "hole" / mask.name.replace("_mask", "")
    row = {key: base64.b64encode(path.read_bytes()).decode() for key, path in (("image", image), ("mask", mask))}
    request = json.dumps({"dataframe_records": [{**row, "name": HOSTILE}]})
    answer = scoring_server.invocations(request, "application/json", served, served.metadata.get_input_schema())
    assert answer.status == 200, answer.response
    (found,) = [json.loads(each["prediction"]) for each in json.loads(answer.response)["predictions"]]
    assert found["image"] == HOSTILE
    names = [name for name, *_ in json.loads(version.tags["classes"])]
    assert found["class"] in names
    assert 0 < found["confidence"] <= 1
    assert found["regions"]
    for region in found["regions"]:
        x0, y0, x1, y1 = region["box"]
        assert x0 < x1
        assert y0 < y1
        assert region["class"] in names
