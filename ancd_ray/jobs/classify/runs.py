"""The published table `runs`: the history of an archive, a row for each product and finished job.

A job that is submitted again has the same run folder while the archive, the models and the job are the same, and adds
no row: run folder and product are the key. So a night that finds nothing new leaves none, and a job that was killed
before its row is made good by the next one. What is new is counted by partitions, against the rows that are there, and
not by what this process did; a job that continues a killed one has the row of a job that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ancd_ray import __version__
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import RUNS, conform
from ancd_ray.jobs.classify.delta import FOLDER, create_table, read_columns, relax, write_rows
from ancd_ray.models.format import DOCUMENT

if TYPE_CHECKING:
    from ancd_ray.jobs.classify.plan import ClassificationPlan

TABLE = "runs"


@dataclass(frozen=True)
class Start:
    """When a job started, by the clock of the machine, and by one that never jumps."""

    at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    clock: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since then."""
        return round(time.perf_counter() - self.clock, 3)


def publish_run(plan: ClassificationPlan, products: Iterable[Mapping[str, Any]], start: Start) -> None:
    """Publish the rows of a finished job, one a product; rows that are there stay as they are.

    Parameters
    ----------
    plan
        Plan of the job.
    products
        What the summary of the job says of each product.
    start
        When the job started.

    Raises
    ------
    StoreError
        The table cannot be read or written.
    """
    folder = plan.root / FOLDER / TABLE
    schema = relax(RUNS)
    table = create_table(folder, schema)
    known = _read(folder, ["product", "run", "partitions"])
    run = _name(plan.run_folder)
    common = {"run": run, "job": plan.job.name, "started_at": start.at, "finished_at": datetime.now(timezone.utc)}
    rows = []
    there = {row["product"] for row in known if row["run"] == run}
    for product, found in zip(plan.products, products, strict=True):
        if product.name in there:
            continue
        seen = max((row["partitions"] for row in known if row["product"] == product.name), default=0)
        new = sum(each.left for each in product.partitions if each.number >= seen)
        counts = {key: found[key] for key in ("images", "deleted", "quarantined")}
        counts |= {"new": new, "known": found["images"] - new, "partitions": len(product.partitions)}
        about = {"product": product.name, "model": product.model.digest, "version": __version__}
        rows.append({**common, **about, **counts, "seconds": start.seconds})
    if rows:
        write_rows(table, folder, conform(rows, RUNS).cast(schema), mode="append")


def count_seen(plan: ClassificationPlan) -> dict[str, int]:
    """Count the partitions of each product that earlier jobs have seen; those after them are new in this one.

    Raises
    ------
    StoreError
        The table cannot be read.
    """
    seen: dict[str, int] = {}
    for row in _read(plan.root / FOLDER / TABLE, ["product", "run", "partitions"]):
        if row["run"] != _name(plan.run_folder):
            seen[row["product"]] = max(seen.get(row["product"], 0), row["partitions"])
    return seen


def read_run(root: Folder, run_folder: Folder) -> list[dict[str, Any]]:
    """Read the rows of a run, one a product; none if the table was deleted.

    Raises
    ------
    StoreError
        The table cannot be read.
    """
    return [row for row in _read(root / FOLDER / TABLE) if row["run"] == _name(run_folder)]


def find_last_model(root: Folder, product: str) -> str | None:
    """Return the digest of the model of the last job over a product; None if there is none, or it was cleaned away."""
    rows = [
        row for row in _read(root / FOLDER / TABLE, ["product", "model", "finished_at"]) if row["product"] == product
    ]
    last = max(rows, key=lambda row: row["finished_at"], default=None)
    return str(last["model"]) if last and (root / "models" / last["model"]).exists(DOCUMENT) else None


def _name(run_folder: Folder) -> str:
    return run_folder.uri.rpartition("/")[2]


def _read(folder: Folder, columns: Sequence[str] = tuple(RUNS.names)) -> list[dict[str, Any]]:
    way_out = "; delete this folder, and the history begins anew"
    rows: list[dict[str, Any]] = read_columns(folder, relax(RUNS), columns, way_out=way_out).to_pylist()
    return rows
