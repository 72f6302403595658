"""Cuts of a finished discovery: other classes of the tree that it has left, as a run of its own.

The steps before the tree are those of the discovery; only the classifier, the classification, the merging and the
figures are made anew, which reads features and no image. The run that is cut stays as it is. A cut can be cut again;
its record (`cut` in `run.json`) has all changes since the discovery. The same classes are the same run folder, however
they were reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from ancd_ray.config.overrides import apply_overrides
from ancd_ray.data.location import StoreError
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder, digest
from ancd_ray.discovery.class_tree import ClassTree
from ancd_ray.discovery.classifiers import load_classifier
from ancd_ray.engine.artifacts import Artifact, ArtifactSet, Files
from ancd_ray.engine.executor import StepRun
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.stage import Stage, get_roles
from ancd_ray.engine.steps import StepCall
from ancd_ray.jobs.cut_source import Source, apply_change, open_source
from ancd_ray.jobs.identity.corrections import NO_CORRECTIONS, read_corrections
from ancd_ray.jobs.identity.discovered import Discovered, identify
from ancd_ray.jobs.results import JobResults, locate_root, read_record
from ancd_ray.jobs.run_folder import (
    REPORT,
    SUMMARY,
    clear,
    copy_tables,
    find_complete,
    find_run_titles,
    write_record,
)
from ancd_ray.models.model import Model
from ancd_ray.stages.classify import Classify
from ancd_ray.stages.cut import Cut
from ancd_ray.stages.evaluate import Evaluate
from ancd_ray.stages.merge import Merge


def cut(
    folder: Folder,
    change: Mapping[str, Any],
    product: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Folder:
    """Cut the classes of a finished discovery otherwise, and return the folder of the run that this makes.

    Parameters
    ----------
    folder
        Run folder of a discovery, or of a cut of one.
    change
        One of `k` (the number of classes, normal included), `merge` (classes that become one) and `split` (a class that
        becomes two). Classes are given by id, name or index.
    product
        Product of the run; required if there are several.
    say
        Is called with lines about the classes.

    Raises
    ------
    CutError, StoreError, ModelError
        There is no tree, no such class, or it cannot be cut so; or the results of the run were deleted.
    """
    root = locate_root(folder)
    with lock_folder(root, say):
        source = open_source(folder, product)
        tree, told = apply_change(source, change)
        results = _run_steps(source, root, tree)
        ends = [artifacts.table("metrics").output.fingerprint for artifacts in results.products.values()]
        target = root / "runs" / f"{source.job.name}-{digest(ends)[:12]}"
        if not find_complete(target):
            _write(source, root, results, target, told)
    for line in describe(target, source.product):
        say(line)
    return target


def _run_steps(source: Source, root: Folder, tree: ClassTree) -> JobResults:
    """Run the steps of a cut that are not done yet, in this process."""
    artifacts = dict(source.artifacts.artifacts)
    corrections = read_corrections(root).get(source.product, NO_CORRECTIONS)
    job = next(apply_overrides(source.job, each) for each in source.job.data.products if each.name == source.product)
    clustered = _find_clustered(source, root)
    has_normal, looks = source.classifier.classes.has_normal, source.classifier.normal is not None
    stages: list[Stage] = [
        Cut(tuple(tree.cls_L.tolist()), looks, corrections.given, corrections.known),
        Classify("references", None, job.unknown.rate, looks),
        Merge(job.merge, has_normal),
        Evaluate(has_normal),
    ]
    made: list[StepRun] = []
    for stage in stages:
        inputs = {**artifacts, "classifier": clustered} if stage.name == Cut.name else artifacts
        call = StepCall.of_artifacts(stage, source.product, inputs, root)
        is_done = call.is_done()
        if not is_done:
            call.run()
        output = call.find_output()
        made.append(StepRun(output, cached=is_done))
        artifacts |= {role: kind(output, role) for role, kind in get_roles(stage.Out).items()}
    replaced = {run.output.folder.uri for run in source.results.steps if _is_replaced(run, source.product)}
    kept = [run for run in source.results.steps if run.output.folder.uri not in replaced]
    products = {**source.results.products, source.product: ArtifactSet(artifacts)}
    return JobResults([*(replace(run, cached=True) for run in kept), *made], products, source.results.base)


def _is_replaced(run: StepRun, product: str) -> bool:
    names = (Cut.name, Classify.name, Merge.name, Evaluate.name)
    return run.product == product and run.name in names


def _find_clustered(source: Source, root: Folder) -> Artifact:
    """Find the classifier of the discovery, of which a cut was made."""
    artifact = source.artifacts.files("classifier")
    if artifact.output.manifest["step"] != Cut.name:
        return artifact
    step = artifact.output.manifest["inputs"]["classifier"]
    output = Output.find(root / "steps" / step["step"] / f"{source.product}-{step['fingerprint']}")
    if output is None:
        raise StoreError(f"{source.folder}: the discovery that it was cut of is no longer in {root}; submit it again")
    return Files(output, "classifier")


def _write(source: Source, root: Folder, results: JobResults, target: Folder, told: dict[str, Any]) -> None:
    """Write the run folder: tables, models, report, summary, and the record."""
    from ancd_ray.jobs.report import render
    from ancd_ray.jobs.report.build import build_report, summarize

    clear(target)
    target.write("job.yaml", source.folder.read("job.yaml"))
    copy_tables(results, target)
    for name in results.products:
        model = Model.load((source.folder / "models" / name).uri)
        if name == source.product:
            discovered = _identify(source, root, results)
            files = results.products[name].files("classifier")
            steps = {**model.provenance["steps"], "classifier": files.output.fingerprint}
            model = replace(
                model,
                classifier=load_classifier(files.read),
                class_ids=tuple(discovered.ids),
                provenance={**model.provenance, "steps": steps},
            )
            discovered.write(root, accept=True)  # a person has asked for these classes
        model.save(target / "models" / name)
    before = (read_record(source.folder) or {}).get("cut", {})
    changes = [] if "k" in told else before.get("changes", {}).get(source.product, [])
    record = {
        "of": source.folder.uri.rpartition("/")[2],
        "discovery": before.get("discovery", source.folder.uri.rpartition("/")[2]),
        "changes": {**before.get("changes", {}), source.product: [*changes, told]},
    }
    titles = find_run_titles(root, target)
    report = build_report(source.job, results, datetime.now(timezone.utc), titles, target, record)
    target.write(REPORT, render(report).encode())
    target.write_json(SUMMARY, {**summarize(source.job, results), "cut": record})
    write_record(target, {**results.record(), "cut": record})


def _identify(source: Source, root: Folder, results: JobResults) -> Discovered:
    """Give ids to the classes: those of the discovery, then those of the run that was cut, then others."""
    folders = [source.folder]
    if before := (read_record(source.folder) or {}).get("cut"):
        folders.insert(0, root / "runs" / before["discovery"])
    kin = [_read_members(folder, source.product) for folder in folders]
    return identify(root, source.product, results.products[source.product], [each for each in kin if each])


def _read_members(folder: Folder, product: str) -> dict[str, str]:
    """Read the id of the class of each region of a run; empty if it was deleted."""
    try:
        ids = [each["id"] for each in (folder / "models" / product).read_json("model.json")["classes"]]
    except FileNotFoundError:
        return {}
    found: dict[str, str] = {}
    for name in (folder / "region_predictions").names():
        rows = (folder / "region_predictions").read_table(name, ["product", "region_id", "cls"]).to_pylist()
        found |= {row["region_id"]: ids[row["cls"]] for row in rows if row["product"] == product}
    return found


def describe(folder: Folder, product: str) -> list[str]:
    """Describe the classes of a cut in lines: id, name and number of images."""
    titles = find_run_titles(locate_root(folder), folder)[product]
    counts = [0] * len(titles)
    for name in (folder / "image_predictions").names():
        for row in (folder / "image_predictions").read_table(name, ["product", "cls"]).to_pylist():
            counts[row["cls"]] += row["product"] == product
    return [f"{title.id:<24} {title.name:<28} {count:>8,} images" for title, count in zip(titles, counts, strict=True)]
