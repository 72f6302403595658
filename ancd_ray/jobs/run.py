"""A whole job on this machine: lock, steps, record, report, tracking."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import yaml

from ancd_ray.backbones.loaded import backbone
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, resolved, validate
from ancd_ray.data.store import Folder, StoreError, exclusive
from ancd_ray.engine import executor as pipeline
from ancd_ray.engine.executor import StepRun
from ancd_ray.engine.outputs import Output, write_part
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs import tracking
from ancd_ray.jobs.plan import JobPlan, make
from ancd_ray.jobs.report import RunReport, render
from ancd_ray.jobs.report import build as reporting

RECORD = "run.json"


def run(job: Job, address: str | None, display: Display) -> Folder:
    """Runs a job to its end; returns the run folder, with `report.html`, `summary.json` and the tables of results.

    Raises:
        JobError, StageError, RuntimeProblem, StoreError, TrackingProblem: one line each says what is wrong.
    """
    plan = make(job)
    resources = job.resources
    with exclusive(plan.root):
        tracking.check(tracking.uri_of(plan))
        check_backbones(plan)
        with Runtime(resources.cpus, resources.gpus, resources.in_process_below, address) as runtime:
            runs = pipeline.run(plan, runtime, display)
        folder = plan.run_folder
        summary = reporting.summary(job, runs)
        folder.write_json("summary.json", summary)
        if not folder.exists(RECORD):
            with display.step("report", job.name):
                _write_results(plan, runs, folder)
                folder.write_json(RECORD, _record(runs))
        with display.step("track", job.name) as progress:
            try:
                tracking.log(plan, runs, summary, folder)
            except tracking.TrackingProblem as error:
                progress.note(str(error))
                display.warn(f"not tracked: {error}")
    return folder


def check_backbones(plan: JobPlan) -> None:
    """Loads the backbones before hours of other work, if a step will need them.

    Raises:
        JobError: one cannot be had.
    """
    if all(look.state == "cached" for look in pipeline.outlook(plan) if "backbone" in look.step.config):
        return
    for config in {product.job.backbone for product in plan.products}:
        try:
            backbone(config)
        except ValueError as error:
            raise JobError(str(error)) from error


def _write_results(plan: JobPlan, runs: Sequence[StepRun], folder: Folder) -> None:
    """The report, the resolved job, and one file for each table that people ask for."""
    folder.write("job.yaml", resolved(plan.job).encode())
    by_product = reporting.outputs_of(runs)
    for product in plan.products:
        outputs = by_product[product.name]
        for name, step in (("image_predictions", "merge"), ("region_predictions", "classify"), ("metrics", "evaluate")):
            for part in outputs[step].parts(name):
                outputs[step].folder.copy_to(
                    part.file, folder / name, f"{product.name}-{part.file.rpartition('part-')[2]}"
                )
    rows = [row for outputs in by_product.values() for row in reporting.quarantine_rows(outputs)]
    write_part(folder, "quarantine", 0, rows)
    report = reporting.run_report(plan.job, runs, datetime.now(timezone.utc))
    folder.write("report.html", render(report).encode())


def _record(runs: Sequence[StepRun]) -> dict[str, Any]:
    """Which steps the run stands on; paths are relative to the output folder, which may move."""
    folders = ["/".join(run.output.folder.uri.split("/")[-3:]) for run in runs]
    return {"steps": folders, "versions": pipeline.versions()}


def rerender(folder: Folder) -> RunReport:
    """Draws the report of a finished run again from its tables; returns what it shows.

    Raises:
        StoreError: this is no run folder, or its steps are gone.
    """
    if folder.exists("sweep.parquet"):
        raise StoreError(f"{folder}: a sweep; submit it again, which trains nothing twice and draws its report")
    if not folder.exists(RECORD):
        raise StoreError(f"{folder}: no run folder (it has no {RECORD}); `ancd-ray submit` prints the one it made")
    root = Folder(folder.uri.rsplit("/", 2)[0])
    outputs = [Output.find(root / place) for place in folder.read_json(RECORD)["steps"]]
    if None in outputs:
        raise StoreError(f"{folder}: the steps of this run are no longer in {root}; submit the job again")
    job = validate(yaml.safe_load(folder.read("job.yaml")))
    report = reporting.run_report(job, [StepRun(o, cached=True) for o in outputs if o], datetime.now(timezone.utc))
    folder.write("report.html", render(report).encode())
    return report
