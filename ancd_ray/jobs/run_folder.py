"""Run folder: result tables, models and report of a job, with a record of what was written.

`run.json` names the steps of the run and the sha256 of every file. A run is done if its files are exactly those; else
they are written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ancd_ray.config.load import dump_resolved
from ancd_ray.data.store import Folder
from ancd_ray.engine.context import StageError
from ancd_ray.engine.outputs import write_part
from ancd_ray.jobs.identity.tables import ClassTitle, find_titles, read_classes
from ancd_ray.jobs.plan import JobPlan
from ancd_ray.jobs.results import RECORD, JobResults, read_record
from ancd_ray.models.format import DOCUMENT

SUMMARY = "summary.json"
REPORT = "report.html"
COPIED = ("image_predictions", "region_predictions", "metrics")
_FOLDERS = (*COPIED, "quarantine", "models")


def find_complete(folder: Folder) -> dict[str, str] | None:
    """Return the sha256 of the files of a run, if they are exactly those that were recorded; else None."""
    record = read_record(folder)
    found = _hash_files(folder) if record else None
    return found if record and record.get("files") == found else None


def write_results(plan: JobPlan, results: JobResults, folder: Folder) -> list[str]:
    """Write the report, the resolved job, the models, and copies of the result tables, in place of earlier ones.

    Returns
    -------
    Lines about classes that were not known before.
    """
    from ancd_ray.jobs.identity.discovered import identify
    from ancd_ray.jobs.report import render
    from ancd_ray.jobs.report.build import build_report
    from ancd_ray.models.model import Model

    clear(folder)
    folder.write("job.yaml", dump_resolved(plan.job).encode())
    copy_tables(results, folder)
    said: list[str] = []
    for product in plan.products:
        artifacts = results.products[product.name]
        discovered = identify(plan.root, product.name, artifacts)
        Model.of(product.job, product.name, artifacts, discovered.ids).save(folder / "models" / product.name)
        discovered.write(plan.root, accept=plan.job.rediscover.accept == "auto")
        said += discovered.describe()
    report = build_report(plan.job, results, datetime.now(timezone.utc), find_run_titles(plan.root, folder), folder)
    folder.write(REPORT, render(report).encode())
    return said


def clear(folder: Folder) -> None:
    """Delete the results of a run, its record first."""
    if folder.exists(RECORD):
        folder.delete(RECORD)
    for name in _FOLDERS:
        (folder / name).remove()


def copy_tables(results: JobResults, folder: Folder) -> None:
    """Write copies of the result tables."""
    for name, artifacts in results.products.items():
        for role in COPIED:
            table = artifacts.table(role)
            for part in table.parts:
                table.folder.copy_to(part.file, folder / role, f"{name}-{part.file.rpartition('part-')[2]}")
    write_part(folder, "quarantine", 0, [row for artifacts in results.every for row in artifacts.quarantine_rows()])


def find_run_titles(root: Folder, folder: Folder) -> dict[str, list[ClassTitle]]:
    """Return what the classes of the models of a run are called today, by product.

    Raises
    ------
    StoreError
        The table of classes cannot be read.
    """
    classes = read_classes(root)
    documents = {name: (folder / "models" / name).read_json(DOCUMENT) for name in (folder / "models").names()}
    return {
        name: find_titles(classes, [each["id"] for each in document["classes"]]) for name, document in documents.items()
    }


def write_record(folder: Folder, record: Mapping[str, Any], known: Mapping[str, str] | None = None) -> None:
    """Write the record of a run whose other files are written; of `known` ones only the summary is a new one."""
    files = {**known, SUMMARY: folder.sha256(SUMMARY)} if known else _hash_files(folder)
    folder.write_json(RECORD, {**record, "files": files})


def check_counts(results: JobResults, folder: Folder) -> None:
    """Count the images of each product in the files of the run: all are predicted or in quarantine.

    Raises
    ------
    StageError
        Images are missing, or are there more than once.
    """
    predicted = _read_products(folder, "image_predictions")
    quarantined = _read_products(folder, "quarantine", role="query")
    for name, artifacts in results.products.items():
        listed = artifacts.table("listing").read(["role"]).column("role").to_pylist().count("query")
        found = predicted.count(name), quarantined.count(name)
        if sum(found) != listed:
            raise StageError(
                f"product {name}: {listed} images were listed, but the tables of {folder} have {found[0]} predictions "
                f"and {found[1]} images in quarantine; submit the job again with another output="
            )


def _read_products(folder: Folder, table: str, role: str | None = None) -> list[str]:
    """Read the product of each row of a result table, or of its rows with a role, from all files of its folder."""
    products: list[str] = []
    for name in (folder / table).names():
        rows = (folder / table).read_table(name, ["product", *(["role"] if role else [])]).to_pylist()
        products += [row["product"] for row in rows if role is None or row["role"] == role]
    return products


def _hash_files(folder: Folder) -> dict[str, str]:
    """Compute the sha256 of the files of a run by their paths, without its record."""
    files = [f"{name}/{file}" for name in _FOLDERS for file in (folder / name).files()]
    files += [name for name in ("job.yaml", REPORT, SUMMARY) if folder.exists(name)]
    return {file: folder.sha256(file) for file in files}
