"""An archive classified night by night: jobs of `mode: classify`, and what programs read of published tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
from click.testing import CliRunner, Result
from deltalake import DeltaTable

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.config.load import validate
from ancd_ray.data.store import Folder
from ancd_ray.engine.progress import Display
from ancd_ray.jobs import tracking
from ancd_ray.jobs.classify.run import run

HELD_BACK = "stain"  # a class of the generated images that no discovery sees
TABLES = ("image_predictions", "quarantine", "region_predictions")


def make_job(archive: Path | str, output: Path | str, model: Folder | Path | str, **keys: Any) -> Job:
    """A job over the product `tile` of the small archive."""
    document = {
        "name": "night",
        "mode": "classify",
        "model": str(model),
        "data": {"root": str(archive), "products": [{"name": "tile", "layout": "mvtec", "path": "tile"}]},
        "resources": {"in_process_below": 100_000},
        "output": str(output),
        **keys,
    }
    return validate(document)


def run_night(job: Job, tracked: bool = False) -> tuple[Folder, dict[str, Any]]:
    """Runs a job as `submit` does, by default without MLflow, which takes longer; returns run folder and summary."""
    display = Display("test")
    with nullcontext() if tracked else patch.object(tracking, "find_store", return_value=None), display.running():
        folder = run(job, None, display)
    return folder, folder.read_json("summary.json")


def read_published(output: Path | str, table: str, options: Mapping[str, str] | None = None) -> list[tuple[Any, ...]]:
    """Reads the sorted rows of a published table with DuckDB, as a user would."""
    found = DeltaTable(f"{output}/archive/{table}", storage_options=dict(options) if options else None)
    rows = duckdb.from_arrow(found.to_pyarrow_dataset())
    columns = [f"cast({name} as varchar)" for name in sorted(rows.columns)]
    return rows.project(", ".join(columns)).order("all").fetchall()


def arrive(source: Path, archive: Path, label: str, start: int, stop: int) -> int:
    """Puts some images of a label into an archive; returns how many."""
    files = sorted((source / "tile/test" / label).iterdir())[start:stop]
    for file in files:
        (archive / "tile/test" / label).mkdir(exist_ok=True)
        shutil.copy2(file, archive / "tile/test" / label / file.name)
    return len(files)


def list_others(source: Path) -> list[str]:
    """The labels that a discovery has seen."""
    return sorted({folder.name for folder in (source / "tile/test").iterdir()} - {HELD_BACK, "good"})


def read_table(output: Path, table: str) -> list[dict[str, Any]]:
    """Reads the rows of a published table."""
    rows: list[dict[str, Any]] = DeltaTable(str(output / "archive" / table)).to_pyarrow_table().to_pylist()
    return rows


def run_classes(*arguments: str) -> Result:
    """Runs `ancd-ray classes`."""
    return CliRunner().invoke(main, ["classes", *arguments])
