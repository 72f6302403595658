"""Fixtures that several test folders share."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from rich.console import Console

from ancd_ray.config.job import Job
from ancd_ray.config.load import validate
from ancd_ray.data.demo.generate import generate
from ancd_ray.data.store import Folder
from ancd_ray.engine.progress import Display

# The first call of a test may compile numba functions or load libraries, which takes longer than any deadline.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

REPO = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Have threads of OpenMP sleep, and xdist take files in the order in which they are collected."""
    # Else they spin while they wait for each other, and two processes on two cores take two to four times the CPU time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: one that is begun last would leave the other processes without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with golden vectors and public data; tests that need it skip without."""
    folder = Path(os.environ.get("ANCD_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set ANCD_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated archive: `tile` with 25 test and 12 normal images, `base` with 9."""
    root = tmp_path_factory.mktemp("demo")
    generate(root, images=25, normals=12, base=9, seed=0, size=128)
    return root


@pytest.fixture(scope="session")
def small_job(demo_root: Path) -> Callable[..., Job]:
    """Makes a job over the small archive that takes seconds, in this process; overrides as on the command line."""

    def make(output: Path, *overrides: str) -> Job:
        document = {
            "name": "small",
            "data": {
                "root": str(demo_root),
                "products": [{"name": "tile", "layout": "mvtec", "path": "tile"}],
                "base": {"name": "base", "layout": "mvtec", "path": "base"},
            },
            "detector": {"name": "patchcore", "image_size": 128, "coreset": 200, "candidates": 1000},
            "discovery": {"method": "anomalyncd"},
            "train": {"epochs": 3, "batch_size": 16, "views": {"bank": 2, "base": 2}},
            "resources": {"in_process_below": 100_000},
            "output": str(output),
        }
        return validate(document, overrides)

    return make


@dataclass(frozen=True)
class Ran:
    """A finished run: its folder, what was said, and its summary."""

    folder: Folder
    said: str
    summary: dict[str, Any]

    @property
    def computed(self) -> set[str]:
        """The steps that were not taken from an earlier run."""
        return {stage["name"] for stage in self.summary["stages"] if not stage["cached"]}


@pytest.fixture(scope="session")
def give_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Job], None]:
    """Puts MLflow's database, as it is before the first run, into the output of a job: making one takes a second."""
    from ancd_ray.jobs.tracking.store import TrackingStore

    database = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    with TrackingStore(f"sqlite:///{database}").connect() as client:
        client.search_experiments()

    def give(job: Job) -> None:
        output = Folder(job.output_root)
        if output.is_local and not output.exists("mlflow.db"):
            output.path.mkdir(parents=True, exist_ok=True)
            shutil.copy(database, output.path)

    return give


@pytest.fixture(scope="session")
def run_job(give_database: Callable[[Job], None]) -> Callable[[Job], Ran]:
    """Runs a job as `submit` does."""
    from ancd_ray.jobs.run import run

    def ran(job: Job) -> Ran:
        give_database(job)
        said = io.StringIO()
        display = Display("test", Console(file=said, width=200))
        with display.running():
            folder = run(job, None, display)
        return Ran(folder, said.getvalue(), folder.read_json("summary.json"))

    return ran


@pytest.fixture(scope="session")
def finished(
    small_job: Callable[..., Job], run_job: Callable[[Job], Ran], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, Ran]:
    """The small job, run once for all tests that only look."""
    job = small_job(tmp_path_factory.mktemp("finished") / "out")
    return job, run_job(job)


@pytest.fixture(scope="session")
def clustered(
    demo_root: Path, run_job: Callable[[Job], Ran], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, Ran]:
    """A discovery without training that takes regions from masks: the cheapest model of the small archive."""
    document = {
        "name": "clustered",
        "data": {
            "root": str(demo_root),
            "products": [{"name": "tile", "layout": "mvtec", "path": "tile"}],
        },
        "detector": {"name": "ground_truth"},
        "discovery": {"method": "ward"},
        "resources": {"in_process_below": 100_000},
        "output": str(tmp_path_factory.mktemp("clustered") / "out"),
    }
    job = validate(document)
    return job, run_job(job)


@pytest.fixture(scope="session")
def ray_of_the_tests() -> Iterator[None]:
    """One Ray on this machine for all tests; jobs find it and leave it running."""
    import ray

    from ancd_ray.engine.runtime import Runtime

    with Runtime(cpus=2) as runtime:
        runtime.start()
        assert ray.is_initialized()
        yield
