"""Runs a job of `mode: classify`: new images are classified, and the tables of the whole archive are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder
from ancd_ray.engine.context import StageError
from ancd_ray.engine.executor import StepRun, run_steps
from ancd_ray.engine.outputs import write_part
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.versions import read_versions
from ancd_ray.jobs.checks import check_ray
from ancd_ray.jobs.classify.classified import Classified, compare_labels, join
from ancd_ray.jobs.classify.plan import ClassificationPlan, make, make_of_others
from ancd_ray.jobs.classify.publish import check_quarantined, publish
from ancd_ray.jobs.classify.runs import Start, publish_run
from ancd_ray.jobs.partitions import write_partitions
from ancd_ray.jobs.plan import JobPlan
from ancd_ray.jobs.rates import record_rates
from ancd_ray.jobs.results import JobResults
from ancd_ray.jobs.run_folder import REPORT, SUMMARY, find_complete, write_record

COPIED = ("image_predictions", "region_predictions")
_NAMED = 10  # new images whose classes are told one by one


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
            write_partitions(product.partitions)
        return _run_plan(plan, None, address, display, start)


def classify_others(discovery: JobPlan, results: JobResults, address: str | None, display: Display) -> Folder:
    """Classify the images that a finished discovery did not look at, and return the run folder of all of them.

    Parameters
    ----------
    discovery
        Plan of the discovery, whose run folder has the models; the caller has the lock of the output.
    results
        Its results.
    address, display
        As in `run`.
    """
    return _run_plan(make_of_others(discovery), results, address, display, Start())


def _run_plan(
    plan: ClassificationPlan, discovered: JobResults | None, address: str | None, display: Display, start: Start
) -> Folder:
    root, resources = plan.root, plan.job.resources
    for product in plan.products:
        product.model.adopt(root)
        display.say(product.describe_changes())
    with Runtime(resources.cpus, resources.gpus, resources.in_process_below, address) as runtime:
        done = run_steps(plan.steps, root, runtime, display, max_quarantined=1.0)
    record_rates(plan, done)
    steps = [*(discovered.steps if discovered else []), *done.values()]
    classified = list(_collect(plan, done, discovered))
    check_quarantined(classified, resources.max_quarantined)
    for product in plan.products:
        for line in _describe_answers([each for each in classified if each.product is product]):
            display.say(f"{product.name}: {line}")
    with display.step("publish", plan.job.name) as progress:
        written = publish(classified, root)
        progress.note(f"{written['image_predictions']:,} images" if any(written.values()) else "nothing new")
    folder = plan.run_folder
    with display.step("report", plan.job.name) as progress:
        complete = find_complete(folder)
        if complete:
            progress.cached()
        else:
            _write_results(plan, classified, steps, folder)
        summary = _summarize(plan, classified, steps)
        folder.write_json(SUMMARY, summary)
        write_record(folder, _make_record(plan, steps), complete)
    publish_run(plan, summary["products"], start)
    return folder


def _describe_answers(classified: Sequence[Classified]) -> Iterator[str]:
    """Describe in lines what the new images are: each of a few, or how many there are of each class."""
    new = [each for each in classified if each.partition.is_new and each.partition is not each.product.discovered]
    if not new:
        return
    names = new[0].product.model.classes
    predicted = join(new, "image_predictions", ["uri", "cls", "confidence"]).to_pylist()
    if len(predicted) <= _NAMED:
        for row in predicted:
            yield f"{row['uri'].rpartition('/')[2]}: {names[row['cls']]} ({row['confidence']:.2f})"
    else:
        counts = Counter(row["cls"] for row in predicted)
        yield "new: " + ", ".join(f"{names[index]} {count:,}" for index, count in sorted(counts.items()))
    if lost := join(new, "quarantine", ["uri", "reason"]).to_pylist():
        more = f", and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        yield f"quarantined: {lost[0]['uri'].rpartition('/')[2]} ({lost[0]['reason']}){more}"


def _collect(
    plan: ClassificationPlan, done: Mapping[str, StepRun], discovered: JobResults | None
) -> Iterator[Classified]:
    for product in plan.products:
        outputs = {
            partition.number: done[step.fingerprint].output
            for partition, step in zip(product.to_classify, product.steps, strict=True)
        }
        for partition in product.partitions:
            if discovered and partition is product.discovered and partition.left:
                yield Classified.of_discovery(product, partition, discovered.products[product.name])
            elif partition.number in outputs:
                yield Classified.of_output(product, partition, outputs[partition.number])


def _write_results(
    plan: ClassificationPlan, classified: Sequence[Classified], steps: Sequence[StepRun], folder: Folder
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
    folder.write(REPORT, render(build_report(plan, classified, steps, datetime.now(timezone.utc))).encode())


def _make_record(plan: ClassificationPlan, steps: Sequence[StepRun]) -> dict[str, Any]:
    return {
        "mode": "classify",
        "steps": ["/".join(step.output.folder.uri.split("/")[-3:]) for step in steps],
        "products": {product.name: product.model.digest for product in plan.products},
        "base": None,
        "versions": read_versions(),
    }


def _summarize(plan: ClassificationPlan, classified: Sequence[Classified], steps: Sequence[StepRun]) -> dict[str, Any]:
    """Make the content of `summary.json`, and check that every image is in one table, once.

    Raises
    ------
    StageError
        Images are missing, or are there more than once.
    """
    products = []
    for product in plan.products:
        own = [each for each in classified if each.product is product]
        listed = sum(each.partition.left for each in own)
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
        {"name": step.name, "product": step.product, "cached": step.cached, "seconds": step.seconds} for step in steps
    ]
    return {"job": plan.job.name, **total, "products": products, "stages": stages, "versions": read_versions()}
