"""Runs a job of `mode: classify`: new images are classified, and the tables of the whole archive are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
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
from ancd_ray.jobs import tracking
from ancd_ray.jobs.checks import check_ray
from ancd_ray.jobs.classify.classified import (
    Classified,
    compare_labels,
    count_classes,
    join,
    read_artifacts,
    read_output,
)
from ancd_ray.jobs.classify.delta import FOLDER
from ancd_ray.jobs.classify.plan import ClassificationPlan, ProductPlan, make, make_of_others
from ancd_ray.jobs.classify.publish import Published, publish, read_again
from ancd_ray.jobs.classify.runs import Start, publish_run, read_run
from ancd_ray.jobs.classify.weights import leave_out_other_weights
from ancd_ray.jobs.identity.discovered import adopt_classes
from ancd_ray.jobs.identity.pool import rediscover
from ancd_ray.jobs.identity.tables import ClassTitle, Row, find_titles, read_classes
from ancd_ray.jobs.nights.collect import Rediscovered, collect_night, describe_alerts
from ancd_ray.jobs.nights.deliver import deliver, is_delivered
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
        plan = leave_out_other_weights(make(job))
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
    for line in (*plan.warnings, *(f"{name}: not classified: {why}" for name, why in plan.left_out.items())):
        display.warn(line)
    adopt_classes(root, {product.name: product.model for product in plan.products})
    for product in plan.products:
        product.model.adopt(root)
        display.say(product.describe_changes())
    with Runtime(resources.cpus, resources.gpus, resources.in_process_below, address) as runtime:
        done = run_steps(plan.steps, root, runtime, display, max_quarantined=1.0)
    record_rates(plan, done)
    steps = [*(discovered.steps if discovered else []), *done.values()]
    classified = list(_collect(plan, done, discovered))
    _check_quarantined(plan, classified, resources.max_quarantined)
    for product in plan.products:
        for line in plan.published.describe_edits(product.name):
            display.warn(line)
    with display.step("publish", plan.job.name) as progress:
        written = publish([*classified, *_find_again(plan)], _list_states(plan), plan.published)
        progress.note(f"{written['image_predictions']:,} images" if any(written.values()) else "nothing new")
    published = Published.read(root)
    found = _rediscover(plan, published, display)
    classes = read_classes(root)
    titles = {product.name: find_titles(classes, product.model.class_ids) for product in plan.products}
    for product in plan.products:
        for line in _describe_answers(_list_new(product, done), titles[product.name]):
            display.say(f"{product.name}: {line}")
    folder = plan.run_folder
    with display.step("report", plan.job.name) as progress:
        complete = find_complete(folder)
        night = None if is_delivered(folder) else collect_night(plan, published, classes, found, start)
        if complete:
            progress.cached()
        else:
            _write_results(plan, classified, published, steps, discovered, folder, titles)
        summary = _summarize(plan, published, steps, classes)
        summary["alerts"] = describe_alerts(night.alerts) if night else []
        folder.write_json(SUMMARY, summary)
        write_record(folder, _make_record(plan, steps), complete)
    if night:
        for line in summary["alerts"]:
            display.warn(line)
        deliver(night, root, folder, plan.job.alerts.webhook if plan.job.alerts else None, display.warn)
    publish_run(plan, summary["products"], start)
    history = read_run(root, folder)
    log = partial(tracking.log_classification, job=plan.job, summary=summary, history=history, run_folder=folder)
    tracking.attempt(display, tracking.find_store(plan.job, root), plan.job.name, folder, log)
    return folder


def _rediscover(plan: ClassificationPlan, published: Published, display: Display) -> Rediscovered:
    """Look for new classes in the pools of unknown regions."""
    with display.step("rediscover", plan.job.name) as progress:
        models = {product.name: product.model for product in plan.products}
        pools, candidates = rediscover(published, models, plan.job.rediscover)
        progress.note(f"{sum(pools.values()):,} unknown regions")
    for candidate in candidates:
        display.say(candidate.describe())
    return Rediscovered(pools, candidates)


def _list_new(product: ProductPlan, done: Mapping[str, StepRun]) -> list[Classified]:
    """List the partitions that this run has classified itself."""
    return [
        Classified(product, partition, read_output(done[step.fingerprint].output))
        for partition, step in zip(product.to_classify, product.steps, strict=True)
        if not done[step.fingerprint].cached
    ]


def _describe_answers(new: Sequence[Classified], titles: Sequence[ClassTitle]) -> Iterator[str]:
    """Describe in lines what the images of partitions are: each of a few, or how many there are of each class."""
    if not new:
        return
    predicted = join(new, "image_predictions", ["uri", "cls", "confidence", "novelty", "is_unknown"]).to_pylist()
    if len(predicted) <= _NAMED:
        for row in predicted:
            name = titles[row["cls"]].name
            said = f"unknown, nearest to {name}" if row["is_unknown"] else f"{name} ({row['confidence']:.2f})"
            yield f"{row['uri'].rpartition('/')[2]}: {said}"
    else:
        counts = Counter("unknown" if row["is_unknown"] else titles[row["cls"]].name for row in predicted)
        yield "new: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    if lost := join(new, "quarantine", ["uri", "reason"]).to_pylist():
        more = f", and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        yield f"quarantined: {lost[0]['uri'].rpartition('/')[2]} ({lost[0]['reason']}){more}"


def _collect(
    plan: ClassificationPlan, done: Mapping[str, StepRun], discovered: JobResults | None
) -> Iterator[Classified]:
    """Collect the partitions that this run has classified or discovered, and that are not published yet."""
    for product in plan.products:
        if sample := _find_sample(product, discovered):
            state = product.make_state(sample.partition)
            if not plan.published.has(product.name, state, sample.partition.left):
                yield sample
        for partition, step in zip(product.to_classify, product.steps, strict=True):
            yield Classified(product, partition, read_output(done[step.fingerprint].output))


def _find_sample(product: ProductPlan, discovered: JobResults | None) -> Classified | None:
    """Return the sample of a discovery as a classified partition, if any of it is left."""
    if not discovered or not product.discovered or not product.discovered.left:
        return None
    return Classified(product, product.discovered, read_artifacts(discovered.products[product.name]))


def _find_again(plan: ClassificationPlan) -> Iterator[Classified]:
    """Return the partitions that are published with images that are gone now."""
    for product in plan.products:
        for partition in product.to_republish:
            rows = read_again(plan.published, product.name, partition, product.model_of(partition).digest)
            yield Classified(product, partition, rows)


def _list_states(plan: ClassificationPlan) -> dict[str, set[str]]:
    return {product.name: set(product.states) for product in plan.products}


def _check_quarantined(plan: ClassificationPlan, classified: Sequence[Classified], allowed: float) -> None:
    """Count the images of each product that cannot be used, in all of its partitions: a night may be a single image.

    Raises
    ------
    StageError
        They are a larger share of the archive than the job allows.
    """
    for product in plan.products:
        new = [each for each in classified if each.product is product]
        lost = join(new, "quarantine", ["uri", "reason"]).to_pylist()
        known = product.states.keys() - {each.state for each in new}
        counts = plan.published.counts["quarantine"]
        n_lost = len(lost) + sum(counts.get((product.name, state), 0) for state in known)
        listed = sum(partition.left for partition in product.partitions)
        if lost and n_lost > allowed * listed:
            raise StageError(
                f"{n_lost} of {listed} images of product {product.name} cannot be used, more than "
                f"resources.max_quarantined={allowed:g} allows; one of them: {lost[0]['uri']}: {lost[0]['reason']}"
            )


def _write_results(
    plan: ClassificationPlan,
    classified: Sequence[Classified],
    published: Published,
    steps: Sequence[StepRun],
    discovered: JobResults | None,
    folder: Folder,
    titles: Mapping[str, Sequence[ClassTitle]],
) -> None:
    """Write the report of the archive, and the tables of what this run has classified."""
    from ancd_ray.jobs.classify.report import build_report
    from ancd_ray.jobs.report import render

    folder.write("job.yaml", dump_resolved(plan.job).encode())
    for table in COPIED:
        (folder / table).remove()
        for each in classified:
            each.copy(table, folder / table)
    write_part(folder, "quarantine", 0, join(classified, "quarantine"))
    samples = [sample for product in plan.products if (sample := _find_sample(product, discovered))]
    pictured = [*samples, *(each for each in classified if each.partition is not each.product.discovered)]
    report = build_report(plan, pictured, published, steps, datetime.now(timezone.utc), titles)
    folder.write(REPORT, render(report).encode())


def _make_record(plan: ClassificationPlan, steps: Sequence[StepRun]) -> dict[str, Any]:
    return {
        "mode": "classify",
        "steps": ["/".join(step.output.folder.uri.split("/")[-3:]) for step in steps],
        "products": {product.name: product.model.digest for product in plan.products},
        "base": None,
        "versions": read_versions(),
    }


def _summarize(
    plan: ClassificationPlan,
    published: Published,
    steps: Sequence[StepRun],
    classes: Mapping[str, Row],
) -> dict[str, Any]:
    """Make the content of `summary.json`, and check that every image is in one published table, once.

    Raises
    ------
    StageError
        Images are missing, or are there more than once.
    """
    products: list[dict[str, Any]] = []
    names = [product.name for product in plan.products]
    quarantined, regions = published.count("quarantine", names), published.count("region_predictions", names)
    for product in plan.products:
        listed = sum(partition.left for partition in product.partitions)
        predicted = published.read_rows("image_predictions", ["class_id", "label", "is_unknown"], product.name)
        if predicted.num_rows + quarantined[product.name] != listed:
            raise StageError(
                f"product {product.name}: {listed} images were listed, but {published.root}/{FOLDER} has "
                f"{predicted.num_rows} predictions and {quarantined[product.name]} images in quarantine; submit the "
                "job again with another output="
            )
        counts = count_classes(predicted)
        shown = {title.name: 0 for title in find_titles(classes, product.model.class_ids)}
        for class_id, title in zip(counts, find_titles(classes, list(counts)), strict=True):
            shown[title.name] = shown.get(title.name, 0) + counts[class_id]  # merged ones have the same name
        products.append(
            {
                "product": product.name,
                "model": product.model.digest,
                "images": listed,
                "new": sum(partition.images for partition in product.partitions if partition.is_new),
                "deleted": product.deleted,
                "quarantined": quarantined[product.name],
                "regions": regions[product.name],
                "classes": shown,
                "unknown": predicted.num_rows - counts.total(),
                **compare_labels(predicted),
            }
        )
    total = {key: sum(each[key] for each in products) for key in ("images", "new", "quarantined", "regions")}
    stages = [
        {"name": step.name, "product": step.product, "cached": step.cached, "seconds": step.seconds} for step in steps
    ]
    return {"job": plan.job.name, **total, "products": products, "stages": stages, "versions": read_versions()}
