"""Runs a job: lock, steps, record, report, tracking."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from ancd_ray.config.job import Job
from ancd_ray.data.location import StoreError
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs import tracking
from ancd_ray.jobs.backbones import check_backbones
from ancd_ray.jobs.checks import check_ray
from ancd_ray.jobs.plan import JobPlan, make
from ancd_ray.jobs.rates import record_rates
from ancd_ray.jobs.results import RECORD, JobResults, locate_root, open_run, read_record
from ancd_ray.jobs.run_folder import (
    REPORT,
    SUMMARY,
    check_counts,
    find_complete,
    find_run_titles,
    write_record,
    write_results,
)
from ancd_ray.jobs.verify import forget_changed

if TYPE_CHECKING:
    from ancd_ray.jobs.report import RunReport


def run(job: Job, address: str | None, display: Display, verify: bool = False) -> Folder:
    """Run a job: its classes are discovered in a sample, and the other images classified with the model.

    Parameters
    ----------
    job
        The job.
    address
        Address of Ray; None for this machine.
    display
        Shows the steps.
    verify
        Whether images, masks and maps are compared with what was read of them before (see `jobs/verify.py`).

    Returns
    -------
    Folder
        The run folder, with `report.html`, `summary.json` and the result tables of all images.

    Raises
    ------
    JobError, StageError, RuntimeProblem, StoreError, TrackingProblem
        The job failed; the message has one line per problem.
    """
    with _planned(job, display) as plan:
        found = None if verify or plan.is_all else _find_results(plan)
        results = found or _discover(plan, address, display, verify)
        if found and job.tracking.register_:  # the job may not have asked for it when its classes were discovered
            _track(plan, found, tracking.find_store(job, plan.root), display)
        if plan.is_all:
            return plan.run_folder
        from ancd_ray.jobs.classify.run import classify_others

        return classify_others(plan, results, address, display)


def discover(job: Job, address: str | None, display: Display) -> Folder:
    """Discover the classes of a job in its sample alone, and return the run folder.

    Raises
    ------
    JobError, StageError, RuntimeProblem, StoreError, TrackingProblem
        The job failed; the message has one line per problem.
    """
    with _planned(job, display) as plan:
        _discover(plan, address, display, verify=False)
        return plan.run_folder


@contextmanager
def _planned(job: Job, display: Display) -> Iterator[JobPlan]:
    """Make the plan of a job and hold the lock of its output, in which the samples are written."""
    plan = make(job)
    with lock_folder(plan.root, display.warn):
        if not plan.write_samples():
            plan = make(job)
            plan.write_samples()
        for product in plan.products:
            if outside := product.sample.describe():
                display.say(f"{product.name}: {outside}")
        yield plan


def _find_results(plan: JobPlan) -> JobResults | None:
    """Find the results of the discovery in its run folder; None if it is not finished, or its files are damaged."""
    record = read_record(plan.run_folder)
    return JobResults.from_record(plan.root, record) if record and find_complete(plan.run_folder) else None


def _discover(plan: JobPlan, address: str | None, display: Display, verify: bool) -> JobResults:
    from ancd_ray.jobs.report.build import summarize

    job, resources = plan.job, plan.job.resources
    store = tracking.find_store(job, plan.root)
    check_ray(address)
    complete = find_complete(plan.run_folder)
    if store and not complete:  # results that are complete do not wait for a server
        store.check()
    if verify:
        forget_changed(plan, display)
    check_backbones(plan)
    with Runtime(resources.cpus, resources.gpus, resources.in_process_below, address) as runtime:
        done = run_steps(plan.steps, plan.root, runtime, display, resources.max_quarantined)
    results = JobResults.of(plan, done)
    folder = plan.run_folder
    summary = summarize(job, results)
    with display.step("report", job.name) as progress:
        if complete:
            progress.cached()
        else:
            for line in write_results(plan, results, folder):
                display.say(line)
        check_counts(results, folder)
        folder.write_json(SUMMARY, summary)
        write_record(folder, results.record(), complete)
        record_rates(plan, done)
    _track(plan, results, store, display)
    return results


def _track(plan: JobPlan, results: JobResults, store: tracking.TrackingStore | None, display: Display) -> None:
    """Log a finished discovery, and register its models, if it is not done yet."""
    folder = plan.run_folder
    log = partial(
        tracking.log,
        job=plan.job,
        results=results,
        summary=folder.read_json(SUMMARY),
        run_folder=folder,
        say=display.say,
    )
    tracking.attempt(display, store, plan.job.name, folder, log)


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
    record = read_record(folder) or {}
    titles = find_run_titles(locate_root(folder), folder)
    report = build_report(job, results, datetime.now(timezone.utc), titles, folder, record.get("cut"))
    folder.write(REPORT, render(report).encode())
    if "files" in record:
        record["files"][REPORT] = folder.sha256(REPORT)
        folder.write_json(RECORD, record)
    return report
