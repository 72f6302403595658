"""Runs a job: lock, steps, record, report, tracking."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, dump_resolved
from ancd_ray.data.store import Folder, StoreError, lock_folder
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.outputs import write_part
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.status import plan_status
from ancd_ray.jobs import tracking
from ancd_ray.jobs.checks import check_ray
from ancd_ray.jobs.plan import JobPlan, make
from ancd_ray.jobs.results import RECORD, JobResults, open_run

if TYPE_CHECKING:
    from ancd_ray.jobs.report import RunReport


def run(job: Job, address: str | None, display: Display) -> Folder:
    """Run a job and return the run folder, with `report.html`, `summary.json` and the result tables.

    Raises
    ------
    JobError, StageError, RuntimeProblem, StoreError, TrackingProblem
        The job failed; the message has one line per problem.
    """
    plan = make(job)
    from ancd_ray.jobs.report.build import summarize

    resources = job.resources
    store = tracking.find_store(job, plan.root)
    with lock_folder(plan.root):
        check_ray(address)
        if store and not plan.run_folder.exists(RECORD):  # results that are complete do not wait for a server
            store.check()
        check_backbones(plan)
        with Runtime(resources.cpus, resources.gpus, resources.in_process_below, address) as runtime:
            done = run_steps(plan.steps, plan.root, runtime, display, resources.max_quarantined)
        results = JobResults.of(plan, done)
        folder = plan.run_folder
        summary = summarize(job, results)
        folder.write_json("summary.json", summary)
        if not folder.exists(RECORD):
            with display.step("report", job.name):
                _write_results(plan, results, folder)
                folder.write_json(RECORD, results.record())
        own = {product.name: product.job for product in plan.products}
        log = partial(tracking.log, job=plan.job, own_jobs=own, results=results, summary=summary, run_folder=folder)
        tracking.attempt(display, store, job.name, folder, log)
    return folder


def check_backbones(plan: JobPlan) -> None:
    """Load the backbones if a step needs them, to fail before hours of other work.

    Raises
    ------
    JobError
        A backbone is unavailable.
    """
    todo = [status.step for status in plan_status(plan.steps, plan.root) if status.state != "cached"]
    if not any(step.stage.resources == "model" for step in todo):
        return
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    from ancd_ray.backbones.loaded import load_cached

    for config in {product.job.backbone for product in plan.products}:
        try:
            load_cached(config)
        except ValueError as error:
            raise JobError(str(error)) from error
        except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise JobError(f"backbone.weights: cannot read {config.weights}: {reason}") from error


def _write_results(plan: JobPlan, results: JobResults, folder: Folder) -> None:
    """Write the report, the resolved job, the models, and copies of the result tables."""
    from ancd_ray.jobs.report import render
    from ancd_ray.jobs.report.build import build_report
    from ancd_ray.models.model import Model

    folder.write("job.yaml", dump_resolved(plan.job).encode())
    for name, artifacts in results.products.items():
        for role in ("image_predictions", "region_predictions", "metrics"):
            table = artifacts.table(role)
            for part in table.parts:
                table.folder.copy_to(part.file, folder / role, f"{name}-{part.file.rpartition('part-')[2]}")
    write_part(folder, "quarantine", 0, [row for artifacts in results.every for row in artifacts.quarantine_rows()])
    for product in plan.products:
        Model.of(product.job, product.name, results.products[product.name]).save(folder / "models" / product.name)
    report = build_report(plan.job, results, datetime.now(timezone.utc))
    folder.write("report.html", render(report).encode())


def rerender(folder: Folder) -> RunReport:
    """Render the report of a finished run again from its tables, and return its content.

    Raises
    ------
    StoreError
        The folder is not a run folder, or results of steps were deleted.
    """
    from ancd_ray.jobs.report import render
    from ancd_ray.jobs.report.build import build_report

    if folder.exists("sweep.parquet"):
        raise StoreError(f"{folder}: a sweep; submit it again, which trains nothing twice and draws its report")
    job, results = open_run(folder)
    report = build_report(job, results, datetime.now(timezone.utc))
    folder.write("report.html", render(report).encode())
    return report
