"""Discoveries over archives that grow, and over a sample of archives that are large."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from ancd_ray.config.job import Job
from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from ancd_ray.discovery.anomalyncd.loop import Sampler
from ancd_ray.engine.outputs import Output, align_shards
from ancd_ray.jobs.archive import Archive
from ancd_ray.jobs.plan import JobPlan, make
from ancd_ray.jobs.results import open_run
from ancd_ray.jobs.samples import divide_evenly
from ancd_ray.jobs.sweep.planning import build_search_space
from ancd_ray.models.find import find_model
from ancd_ray.stages.views import EncodeViews, FillViewBank
from tests.conftest import Ran

RunJob = Callable[[Job], Ran]
MakeJob = Callable[..., Job]


@pytest.fixture
def archive(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the small archive, to be changed."""
    shutil.copytree(demo_root, tmp_path / "archive", copy_function=shutil.copy2)
    return tmp_path / "archive"


@pytest.fixture
def make_job(small_job: MakeJob, archive: Path, tmp_path: Path) -> MakeJob:
    """Makes a clustering job over the copy, always with the same output."""

    def made(*overrides: str, detector: str = "ground_truth") -> Job:
        keys = (
            "data.base=null",
            "discovery.method=ward",
            "classes.novel=4",
            f"detector={{name: {detector}}}",
            *overrides,
        )
        return small_job(tmp_path / "out", f"data.root={archive}", *keys)

    return made


def _rows(folder: Folder, table: str = "image_predictions") -> dict[str, dict[str, Any]]:
    key = "region_id" if table == "region_predictions" else "image_id"
    rows = ds.dataset(str(folder.path / table)).to_table().to_pylist()
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows), "every image once"
    return found


def _published(output: Path) -> dict[str, dict[str, Any]]:
    table = DeltaTable(str(output / "archive" / "image_predictions")).to_pyarrow_table()
    rows = table.drop_columns(["class_id", "day", "partition", "model", "state"]).to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: row for row in rows}


def _add(archive: Path, name: str = "new", of: str = "scratch/000") -> Path:
    source, mask = archive / f"tile/test/{of}.png", archive / f"tile/ground_truth/{of}_mask.png"
    shutil.copy2(mask, mask.with_name(f"{name}_mask.png"))
    return Path(shutil.copy2(source, source.with_name(f"{name}.png")))


def _describe(plan: JobPlan) -> str:
    return " ".join(plan.describe_inputs())


def test_an_archive_below_the_limit_is_its_own_sample(make_job: MakeJob, archive: Path) -> None:
    job = make_job()
    (product,) = make(job).products
    listed = Archive(str(archive)).product(job.data.products[0], job.detector.reads_maps)
    assert product.listing.digest == listed.digest
    assert list(product.listing.rows) == list(listed.rows)
    assert product.sample.is_all
    assert product.sample.describe() is None


def test_an_image_that_is_added_is_classified_with_the_model(
    make_job: MakeJob, run_job: RunJob, archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    first = run_job(job)
    added = _add(archive)
    assert "1 image is classified with the model of the 25 that the discovery looks at" in _describe(make(job))
    second = run_job(job)
    said = capfd.readouterr().err
    assert "tile: 1 new image, 25 known" in said
    assert "new.png: class" in said
    assert second.computed == {"classify_images"}
    before, after = _rows(first.folder), _published(tmp_path / "out")
    assert {image: row for image, row in after.items() if row["uri"] != str(added)} == before
    assert _rows(second.folder) == after, "nothing was published before"
    assert (second.summary["images"], second.summary["new"], second.summary["quarantined"]) == (26, 1, 0)
    twin = next(row for row in after.values() if row["uri"].endswith("scratch/000.png"))
    (new,) = (row for row in after.values() if row["uri"] == str(added))
    assert (new["cls"], new["probs"]) == (twin["cls"], twin["probs"]), "the model knows the regions of the discovery"
    regions = _rows(second.folder, "region_predictions")
    assert _rows(first.folder, "region_predictions").items() <= regions.items()
    again = run_job(job)
    assert again.folder.uri == second.folder.uri
    assert again.computed == set()
    assert find_model(second.folder.uri).endswith(second.summary["products"][0]["model"])


def test_another_night_computes_that_night_alone(make_job: MakeJob, run_job: RunJob, archive: Path) -> None:
    job = make_job()
    run_job(job)
    for night in ("first", "second"):
        _add(archive, night)
        ran = run_job(job)
        assert ran.summary["new"] == 1
    passes = [stage["cached"] for stage in ran.summary["stages"] if stage["name"] == "classify_images"]
    assert passes == [False], "the first night is published"
    assert ran.summary["images"] == 27


def test_images_that_change_or_go_leave_the_tables(
    make_job: MakeJob, run_job: RunJob, archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    run_job(job)
    changed, deleted = archive / "tile/test/scratch/000.png", archive / "tile/test/good/000.png"
    shutil.copy(archive / "tile/test/scratch/001.png", changed)
    deleted.unlink()
    assert "of which 2 are gone or changed" in _describe(make(job))
    ran = run_job(job)
    assert "1 new image, 23 known, 1 of 24 images are gone" in capfd.readouterr().err
    rows = _rows(ran.folder)
    assert len(rows) == 24
    assert str(deleted) not in {row["uri"] for row in rows.values()}
    assert _published(tmp_path / "out").keys() == rows.keys()
    other = run_job(make_job("discovery.method=kmeans"))
    assert other.summary["images"] == 24, "a discovery that has to be done looks at today's archive"
    assert "catalog" in other.computed
    assert make(make_job("discovery.method=kmeans")).is_all


def test_a_new_image_that_cannot_be_read_is_told_and_ends_no_job(
    make_job: MakeJob, run_job: RunJob, archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_job(make_job())
    _add(archive).write_bytes(b"no image")
    ran = run_job(make_job())
    assert (ran.summary["images"], ran.summary["quarantined"]) == (26, 1)
    assert "quarantined: new.png (" in capfd.readouterr().err


def test_refit_discovers_anew(make_job: MakeJob, run_job: RunJob, archive: Path, tmp_path: Path) -> None:
    job, refit = make_job(), make_job("discovery.refit_when_grown_by=0")
    first = run_job(job)
    assert run_job(refit).folder.uri == first.folder.uri, "nothing has changed"
    _add(archive)
    assert not make(job).is_all
    assert not make(make_job("discovery.refit_when_grown_by=0.5")).is_all
    assert make(make_job("discovery.refit_when_grown_by=0.04")).is_all
    anew = run_job(refit)
    assert {"catalog", "cluster"} <= anew.computed
    assert len(_rows(anew.folder)) == 26
    assert make(job).is_all, "from now on this is the sample"
    assert run_job(job).folder.uri == anew.folder.uri
    shutil.rmtree(tmp_path / "out")
    shutil.copytree(archive, tmp_path / "elsewhere", copy_function=shutil.copy2)
    alone = run_job(job)
    assert _rows(alone.folder) == _rows(anew.folder), "as if the archive had always been like this"


def test_a_large_archive_is_sampled(make_job: MakeJob, run_job: RunJob, archive: Path, tmp_path: Path) -> None:
    keys = ("discovery.max_regions=15", "detector.max_normals=5", "detector.image_size=128", "detector.coreset=200")
    job = make_job(*keys, detector="patchcore")
    (product,) = make(job).products
    assert Counter(row["role"] for row in product.listing.rows) == {"query": 15, "normal": 5}
    ran = run_job(job)
    assert {"cluster", "classify_images"} <= ran.computed
    rows = _rows(ran.folder)
    assert len(rows) == 25
    assert ran.summary["new"] == 25
    assert _published(tmp_path / "out").keys() == rows.keys()
    again = run_job(job)
    assert again.computed == set()
    for number in range(3):
        _add(archive, f"night{number}")
    run_job(job)
    refit = make_job(*keys, "discovery.refit_when_grown_by=0", detector="patchcore")
    (product,) = make(refit).products
    names = [Path(row["uri"]).stem for row in product.listing.rows if row["role"] == "query"]
    assert len(names) == 15
    assert {f"night{number}" for number in range(3)} <= set(names), "what is new is seen"
    ran = run_job(refit)
    assert len(_rows(ran.folder)) == 28, "a new model classifies everything"
    assert _published(tmp_path / "out") == _rows(ran.folder)


def test_an_interrupted_job_goes_on_over_a_grown_archive(
    make_job: MakeJob, run_job: RunJob, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ancd_ray.stages.cluster import Cluster

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    job = make_job()
    with monkeypatch.context() as patched:
        patched.setattr(Cluster, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_job(job)
    _add(archive)
    ran = run_job(job)
    assert len(_rows(ran.folder)) == 26
    record = ran.folder.read_json("run.json")
    assert sum(place.startswith("steps/catalog/") for place in record["steps"]) == 1
    (catalog,) = (Output.find(make(job).root / place) for place in record["steps"] if "/catalog/" in place)
    assert catalog is not None
    assert catalog.values["listed"] == 25 + 12, "the images that the interrupted job had begun with"


def test_trials_of_a_sweep_share_the_sample(make_job: MakeJob, run_job: RunJob, archive: Path) -> None:
    run_job(make_job())
    (archive / "tile/test/good/000.png").unlink()
    sweep = {"metric": "nmi", "parameters": {"mebin.padding": {"grid": [0.1, 0.2]}}}
    job = Job.model_validate(make_job().model_dump(by_alias=True, exclude_unset=True) | {"sweep": sweep})
    space = build_search_space(job)
    assert len({trial.plan.listing.digest for trial in space.trials}) == 1


def test_a_partition_that_cannot_be_read_is_named(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    assert make(job).write_samples()
    (file,) = (tmp_path / "out/partitions").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"-sample\.parquet: the listing .* is damaged .*; delete the file") as error:
        make(job)
    assert len(str(error.value).splitlines()) == 1


def test_two_jobs_that_draw_at_once_have_one_sample(make_job: MakeJob) -> None:
    first, second = make(make_job()), make(make_job())
    assert first.write_samples()
    assert not second.write_samples(), "it is made again"
    assert make(make_job()).write_samples()


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 100))
def test_groups_have_equal_shares(sizes: list[int], total: int) -> None:
    shares = divide_evenly(sizes, total)
    assert sum(shares) == min(total, sum(sizes))
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    open_ = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert not open_ or max(shares) - min(open_) <= 1


def test_epochs_are_shortened_to_the_limit_of_steps() -> None:
    assert Sampler([None] * 100, 10).steps == 10
    assert Sampler([None] * 100, 10, max_steps=3).steps == 3
    drawn = Sampler([None] * 100, 10, max_steps=3).draw(np.random.default_rng(0))
    assert len(drawn) == 10


def test_the_view_bank_has_no_more_regions_than_the_limit(finished: tuple[Job, Ran]) -> None:
    job, ran = finished
    _, results = open_run(ran.folder)
    regions = results.products["tile"].table("regions")
    shards = align_shards({"regions": regions})
    workers: list[EncodeViews] = []

    class Recorded:
        def map(self, worker: EncodeViews, _: object) -> Iterator[object]:
            workers.append(worker)
            yield

    for limit in (10, 20_000):
        stage = FillViewBank(job.backbone, 2, limit)
        next(stage.run(Recorded(), FillViewBank.In(regions)))  # type: ignore[arg-type]
    few, everything = (
        [row["region_id"] for shard in shards for batch in worker(shard).tables["views"] for row in batch]
        for worker in workers
    )
    assert set(everything) == set(regions.read(["region_id"]).column("region_id").to_pylist())
    assert 0 < len(set(few)) < len(set(everything))
    assert set(Counter(few).values()) == {2}


def test_the_index_of_partitions_is_only_faster(make_job: MakeJob, archive: Path, tmp_path: Path) -> None:
    for number in range(3):
        _add(archive, f"night{number}")
        assert make(make_job()).write_samples()
    (index,) = (tmp_path / "out/partitions").rglob("index.parquet")
    (with_index,) = make(make_job()).products
    _add(archive, "last")
    older = index.read_bytes()
    assert make(make_job()).write_samples()
    (today,) = make(make_job()).products
    for content in (older, b"no index"):
        index.write_bytes(content)
        (product,) = make(make_job()).products
        assert product.sample.others == today.sample.others
    index.unlink()
    (product,) = make(make_job()).products
    assert product.sample.compared.number_N.tolist() == today.sample.compared.number_N.tolist()
    assert set(product.sample.compared.number_N.tolist()) == {-1, 0, 1, 2, 3}
    assert len(with_index.sample.others) == 2
