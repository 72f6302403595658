"""Runs a job of `mode: classify`: new images are classified, and the tables of the whole archive are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder
from ancd_ray.engine.context import StageError
from ancd_ray.engine.executor import StepRun, read_versions, run_steps
from ancd_ray.engine.outputs import write_part
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs import tracking
from ancd_ray.jobs.checks import check_ray
from ancd_ray.jobs.classify.classified import Classified, compare_labels, join
from ancd_ray.jobs.classify.plan import ClassificationPlan, make
from ancd_ray.jobs.classify.publish import check_quarantined, publish
from ancd_ray.jobs.classify.runs import Start, publish_run, read_run
from ancd_ray.jobs.rates import record_rates
from ancd_ray.jobs.run_folder import REPORT, SUMMARY, find_complete, write_record

COPIED = ("image_predictions", "region_predictions")


def run(job: Job, address: str | None, display: Display) -> Folder:
    """Classify what is new of an archive, and return the run folder.

    Raises
    ------
    JobError, StageError, RuntimeProblem, StoreError, ModelError
        The job failed; the message has one line per problem.
    """
    start, root = Start(), Folder(job.output_root)
    with lock_folder(root, display.warn):
        plan = make(job)
        check_ray(address)
        for product in plan.products:
            product.model.adopt(root)
            for partition in product.partitions:
                partition.write()
            display.say(product.describe_changes())
        resources = job.resources
        with Runtime(resources.cpus, resources.gpus, resources.in_process_below, address) as runtime:
            done = run_steps(plan.steps, root, runtime, display, max_quarantined=1.0)
        record_rates(plan, done)
        classified = list(_collect(plan, done))
        check_quarantined(classified, resources.max_quarantined)
        with display.step("publish", job.name) as progress:
            written = publish(classified, root, display.warn)
            progress.note(f"{written['image_predictions']:,} images" if any(written.values()) else "nothing new")
        folder = plan.run_folder
        with display.step("report", job.name) as progress:
            complete = find_complete(folder)
            if complete:
                progress.cached()
            else:
                _write_results(plan, classified, done, folder)
            summary = _summarize(plan, classified, done)
            folder.write_json(SUMMARY, summary)
            write_record(folder, _make_record(plan, done), complete)
        publish_run(plan, summary["products"], start)
        history = read_run(root, folder)
        log = partial(tracking.log_classification, job=job, summary=summary, history=history, run_folder=folder)
        tracking.attempt(display, tracking.find_store(job, root), job.name, folder, log)
    return folder


def _collect(plan: ClassificationPlan, done: Mapping[str, StepRun]) -> Iterator[Classified]:
    for product in plan.products:
        left = [partition for partition in product.partitions if not partition.is_empty]
        for partition, step in zip(left, product.steps, strict=True):
            yield Classified(product, partition, done[step.fingerprint].output)


def _write_results(
    plan: ClassificationPlan, classified: list[Classified], done: Mapping[str, StepRun], folder: Folder
) -> None:
    """Write the tables and the report of a run."""
    from ancd_ray.jobs.classify.report import build_report
    from ancd_ray.jobs.report import render

    folder.write("job.yaml", dump_resolved(plan.job).encode())
    for table in COPIED:
        (folder / table).remove()
        for each in classified:
            each.copy(table, folder / table)
    write_part(folder, "quarantine", 0, join(classified, "quarantine"))
    folder.write(REPORT, render(build_report(plan, classified, done, datetime.now(timezone.utc))).encode())


def _make_record(plan: ClassificationPlan, done: Mapping[str, StepRun]) -> dict[str, Any]:
    steps = ["/".join(step.output.folder.uri.split("/")[-3:]) for step in done.values()]
    models = {product.name: product.model.digest for product in plan.products}
    return {"mode": "classify", "steps": steps, "products": models, "base": None, "versions": read_versions()}


def _summarize(plan: ClassificationPlan, classified: list[Classified], done: Mapping[str, StepRun]) -> dict[str, Any]:
    """Make the content of `summary.json`, and check that every image is in one table, once.

    Raises
    ------
    StageError
        Images are missing, or are there more than once.
    """
    products = []
    for product in plan.products:
        own = [each for each in classified if each.product is product]
        listed = sum(each.partition.images - len(each.partition.gone) for each in own)
        predicted = join(own, "image_predictions")
        quarantined = sum(each.read("quarantine").num_rows for each in own)
        if predicted.num_rows + quarantined != listed:
            raise StageError(
                f"product {product.name}: {listed} images were listed, but there are {predicted.num_rows} predictions "
                f"and {quarantined} images in quarantine; submit the job again with another output="
            )
        counts = Counter(predicted.column("cls").to_pylist())
        products.append(
            {
                "product": product.name,
                "model": product.model.digest,
                "images": listed,
                "new": sum(partition.images for partition in product.partitions if partition.is_new),
                "deleted": product.deleted,
                "quarantined": quarantined,
                "regions": sum(each.read("region_predictions", ["image_id"]).num_rows for each in own),
                "classes": {name: counts[index] for index, name in enumerate(product.model.classes)},
                **compare_labels(predicted),
            }
        )
    total = {key: sum(each[key] for each in products) for key in ("images", "new", "quarantined", "regions")}
    stages = [
        {"name": step.name, "product": step.product, "cached": step.cached, "seconds": step.seconds}
        for step in done.values()
    ]
    return {"job": plan.job.name, **total, "products": products, "stages": stages, "versions": read_versions()}
