"""Fixtures of archives that grow night by night."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ancd_ray.config.job import Job
from ancd_ray.data.demo.generate import generate
from ancd_ray.data.store import Folder
from tests.conftest import Ran
from tests.nights import HELD_BACK


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images of which one class comes later."""
    root = tmp_path_factory.mktemp("source")
    generate(root, images=170, normals=4, base=3, seed=3, size=96)
    assert (root / "tile/test" / HELD_BACK).is_dir()
    return root


@pytest.fixture(scope="session")
def discovered(source: Path, tmp_path_factory: pytest.TempPathFactory, run_job: Callable[[Job], Ran]) -> Folder:
    """The run of a discovery without the class that comes later."""
    from ancd_ray.config.load import validate

    output = tmp_path_factory.mktemp("discovered")
    document = {
        "name": "first",
        "data": {
            "root": str(source),
            "products": [{"name": "tile", "layout": "mvtec", "path": "tile", "exclude": [HELD_BACK, "good"]}],
        },
        "detector": {"name": "ground_truth"},
        "discovery": {"method": "ward"},
        "resources": {"in_process_below": 100_000},
        "output": str(output),
    }
    return run_job(validate(document)).folder


@pytest.fixture
def arrivals(source: Path, tmp_path: Path) -> Path:
    """An archive with the masks of all images and none of the images yet."""
    root = tmp_path / "archive"
    shutil.copytree(source / "tile/ground_truth", root / "tile/ground_truth")
    (root / "tile/test").mkdir()
    return root
