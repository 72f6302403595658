"""A finished discovery as that of which a model is registered: its run folder, its job, its model and the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.job import Job
from ancd_ray.config.overrides import apply_overrides
from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.jobs.classify.pinned import PinnedModel, pin_model
from ancd_ray.jobs.results import JobResults, open_job, read_record
from ancd_ray.jobs.tracking.card import COLUMNS, FIGURES, Card, make_card
from ancd_ray.models.find import find_model


@dataclass(frozen=True)
class Discovery:
    """A product of a finished discovery."""

    folder: Folder  # run folder
    job: Job  # with the overrides of the product
    product: str
    model: PinnedModel

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.folder.uri.rpartition("/")[2]


def open_discovery(folder: Folder, product: str | None) -> Discovery:
    """Open the run folder of a discovery; its model is loaded once, to see that no file of it is damaged.

    Parameters
    ----------
    folder
        Folder that `ancd-ray submit` printed.
    product
        Product of the run; required if there are several.

    Raises
    ------
    StoreError, ModelError, JobError
        The folder is that of no discovery, or its model cannot be used.
    """
    if folder.exists("sweep.parquet"):
        raise StoreError(
            f"{folder}: a sweep; write its best settings with `ancd-ray apply {folder} best.yaml`, submit that, and "
            "take the run folder it prints"
        )
    if (read_record(folder) or {}).get("mode") == "classify":
        raise StoreError(f"{folder}: has images classified with a model; take the run of the discovery that made it")
    from ancd_ray.models.model import Model

    job = open_job(folder)
    place = find_model(folder.uri, product)
    Model.load(place)
    name = place.rpartition("/")[2]
    own = next(apply_overrides(job, each) for each in job.data.products if each.name == name)
    return Discovery(folder, own, name, pin_model(place, name))


def read_card(run: Discovery, results: JobResults | None) -> Card:
    """Make the card of a model from the tables of its run folder.

    Parameters
    ----------
    run
        The discovery that made the model.
    results
        Results of its steps, which have the pictures; None if they were deleted.
    """
    measured = {(row["level"], row["name"]): row["value"] for row in _read_rows(run, "metrics").to_pylist()}
    figures = {name: measured.get(("region" if name == "silhouette" else "image", name)) for name in FIGURES}
    return make_card(
        run.job,
        run.name,
        run.product,
        run.model,
        _read_rows(run, "image_predictions", ["cls"]).num_rows,
        figures,
        _read_rows(run, "region_predictions", COLUMNS),
        results.products[run.product].table("regions") if results else None,
    )


def _read_rows(run: Discovery, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of the product in a result table, from all files of its folder."""
    chosen = ["product", *columns] if columns else None
    folder = run.folder / table
    tables = [folder.read_table(name, chosen) for name in folder.names()]
    empty = SCHEMAS[table].empty_table()
    rows = pa.concat_tables([empty.select(chosen) if chosen else empty, *tables], promote_options="permissive")
    return rows.filter(pc.equal(rows.column("product"), run.product))
