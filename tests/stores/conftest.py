"""The object store of the tests, with the small archive in it, and commands that run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from tests.conftest import REPO
from tests.stores.server import Store, serve_store

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def store(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the small archive in `archive/demo`, and an empty bucket `results`."""
    with serve_store(tmp_path_factory.mktemp("store") / "log") as served:
        served.upload(demo_root, "archive/demo")
        served.files.create_dir("results")
        yield served


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs a command of the program; its temporary files are in `tmp_path/temp`."""
    (tmp_path / "temp").mkdir()

    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        given = {**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(tmp_path / "temp"), **(environment or {})}
        line = [sys.executable, "-m", "ancd_ray", *arguments]
        return subprocess.run(line, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture
def job_file(small_job: Callable[..., Job], tmp_path: Path) -> Callable[..., str]:
    """Writes a job file of the small job over locations with credentials, which `dump_resolved` would hide."""

    def write(root: str, output: str, *overrides: str, tracking: str | None = None) -> str:
        document: dict[str, Any] = yaml.safe_load(dump_resolved(small_job(tmp_path, *overrides)))
        document["data"]["root"], document["output"] = root, output
        document["tracking"] = {"uri": tracking} if tracking else {}
        file = tmp_path / "job.yaml"
        file.write_text(yaml.safe_dump(document))
        return str(file)

    return write
