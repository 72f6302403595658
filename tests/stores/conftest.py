"""The object store of the tests, with the small archive in it, and job files over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from tests.stores.server import Store, serve_store

WriteJob = Callable[..., str]


@pytest.fixture(scope="session")
def store(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the small archive in `archive/demo`, and an empty bucket `results`."""
    with serve_store(tmp_path_factory.mktemp("store") / "log") as served:
        served.upload(demo_root, "archive/demo")
        served.files.create_dir("results")
        yield served


@pytest.fixture(scope="session")
def write_job(small_job: Callable[..., Job], tmp_path_factory: pytest.TempPathFactory) -> WriteJob:
    """Writes a job file of the small job over locations with credentials, which `dump_resolved` would hide."""

    def write(root: str, output: str, *overrides: str, tracking: str | None = None) -> str:
        document: dict[str, Any] = yaml.safe_load(dump_resolved(small_job(Path("/nowhere"), *overrides)))
        document["data"]["root"], document["output"] = root, output
        document["tracking"]["uri"] = tracking
        file = tmp_path_factory.mktemp("job") / "job.yaml"
        file.write_text(yaml.safe_dump(document))
        return str(file)

    return write
