"""A small sweep over two products, run once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ancd_ray.config.job import Job
from ancd_ray.config.load import validate
from ancd_ray.data.store import Folder
from ancd_ray.engine.progress import Display

PARAMETERS = {"train.lambda": {"grid": [0.1, 0.3]}, "merge.tau_alpha": {"grid": [10, 50, 100]}}


@pytest.fixture(scope="session")
def small_sweep(demo_root: Path) -> Callable[..., Job]:
    """Makes a sweep over the generated archive; more keys of the section, and overrides as on the command line."""

    def make(output: Path, *overrides: str, **section: Any) -> Job:
        tile = {"layout": "mvtec", "path": "tile"}
        document = {
            "name": "small",
            "data": {
                "root": str(demo_root),
                "products": [{"name": "tile", **tile}, {"name": "other", **tile, "exclude": ["crack"]}],
                "base": {"name": "base", "layout": "mvtec", "path": "base"},
            },
            "detector": {"name": "ground_truth"},
            "discovery": {"method": "anomalyncd"},
            "train": {"epochs": 2, "batch_size": 16, "views": {"bank": 2, "base": 2}},
            "resources": {"in_process_below": 100_000},
            "sweep": {"parameters": PARAMETERS, **section},
            "output": str(output),
        }
        return validate(document, overrides)

    return make


@pytest.fixture(scope="session")
def run_sweep(give_database: Callable[[Job], None]) -> Callable[[Job], tuple[Folder, str]]:
    """Runs a sweep as `submit` does; its folder, and what was said."""
    from ancd_ray.jobs.sweep.run import run

    def ran(job: Job) -> tuple[Folder, str]:
        give_database(job)
        said = io.StringIO()
        display = Display("test", Console(file=said, width=200))
        return run(job, None, display), said.getvalue()

    return ran
