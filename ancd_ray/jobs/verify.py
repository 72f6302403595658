"""Finds images, masks and anomaly maps that changed behind unchanged stamps, and deletes what rests on them.

A listing tells changed files by their stamps, size and time of change. Content that is replaced by content of the same
size, with the old time set again (`cp -p`, `rsync --times`, `touch -r`) or within the resolution of the filesystem's
clock, has the same stamp: the cached catalog and what was computed of it are used. `submit --verify` reads every image
that a cached catalog names and compares it with the catalog's digest. Masks and precomputed maps have no digest; the
stages that read them are computed again, shard by shard, and compared with what they left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ancd_ray.data.images import BadImage, read_bytes
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS, conform
from ancd_ray.engine.attempts import Worker
from ancd_ray.engine.calls import run_here
from ancd_ray.engine.context import Context
from ancd_ray.engine.integrity import inspect_folder
from ancd_ray.engine.outputs import CommittedShard, Output, Result, Shard, ShardResult, read_finished_shard
from ancd_ray.engine.progress import Display, Progress
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.shards import ShardWork, run_alone
from ancd_ray.engine.stage import Stage, Step
from ancd_ray.jobs.plan import JobPlan
from ancd_ray.jobs.results import RECORD, read_record
from ancd_ray.stages.calibrate import Calibrate
from ancd_ray.stages.catalog import Catalog
from ancd_ray.stages.detect import Detect
from ancd_ray.stages.score_maps import ScoreMaps
from ancd_ray.stages.score_regions import ScoreRegions

_READ_AT_ONCE = 8  # images


def forget_changed(plan: JobPlan, display: Display) -> None:
    """Delete all results of the output folder that rest on files whose content changed; the caller has its lock."""
    changed: set[str] = set()
    for step in plan.steps:
        if isinstance(step.stage, Catalog):
            with display.step("verify", step.product):
                if uris := _find_changed(step, plan.root):
                    changed.add(step.fingerprint)
                    display.warn(f"{step.product}: {len(uris)} images changed behind the same stamp, such as {uris[0]}")
        elif _reads_masks_or_maps(step.stage) and not changed & {ref.step.fingerprint for ref in step.inputs.values()}:
            with display.step(f"verify {step.name}", step.product) as progress:
                if not _is_the_same(step, plan.root, progress):
                    changed.add(step.fingerprint)
                    display.warn(f"{step.product}: masks or anomaly maps changed behind the same stamp")
    if changed:
        _forget(plan.root, changed)


def _find_changed(step: Step, root: Folder) -> list[str]:
    """Return the URIs of the images whose content is not that of the catalog; none if the catalog is not cached."""
    output = Output.find(step.folder(root))
    if output is None:
        return []
    rows = output.table("images", ["uri", "digest"]).to_pydict()
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        found = pool.map(_hash_image, rows["uri"])
        return [uri for uri, digest, now in zip(rows["uri"], rows["digest"], found, strict=True) if now != digest]


def _hash_image(uri: str) -> str | None:
    try:
        return hashlib.sha256(read_bytes(uri)).hexdigest()
    except BadImage:
        return None


def _reads_masks_or_maps(stage: Stage) -> bool:
    if isinstance(stage, Detect | Calibrate):
        return stage.detector.needs == "masks" or stage.detector.reads_maps
    return isinstance(stage, ScoreMaps | ScoreRegions)


def _is_the_same(step: Step, root: Folder, progress: Progress) -> bool:
    """Compute a step again and tell whether it leaves what it left; True if it, or an input, is not there."""
    folder = step.folder(root)
    outputs = {role: inspect_folder(ref.step.folder(root)).output for role, ref in step.inputs.items()}
    inputs = {role: ref.bind(output) for role, ref in step.inputs.items() if (output := outputs[role])}
    if len(inputs) < len(step.inputs) or not inspect_folder(folder).output:
        return True
    quiet = Runtime()  # of which no work is asked
    comparison = _Comparison(step.name, step.product, folder, "light", quiet, progress, max_quarantined=1)
    work = step.stage.run(comparison, step.stage.In(**inputs))
    assert not isinstance(work, Result), "stages that read files divide their work"
    run_alone(work, run_here)
    return not comparison.differing


@dataclass(frozen=True)
class _Comparison(Context):
    """A context that compares shards with what is committed, and commits none; `differing` has their numbers."""

    differing: list[int] = field(default_factory=list)

    def map(self, worker: Worker, shards: Sequence[Shard]) -> ShardWork:
        """Compute all shards in this process; returns those that are committed."""
        yield from ()
        self.progress.total(sum(shard.rows for shard in shards))
        found = []
        for shard in shards:
            done = read_finished_shard(self.folder, shard.index)
            if done is None or not _is_what_was_left(worker(shard), done, self.folder):
                self.differing.append(shard.index)
            if done:
                found.append(done)
            self.progress.advance(shard.rows)
        return found


def _is_what_was_left(work: ShardResult, done: CommittedShard, folder: Folder) -> bool:
    tables = {name: conform(rows, SCHEMAS[name]) for name, rows in work.tables.items()}
    tables = {name: table for name, table in tables.items() if name in done.parts or table.num_rows}
    return (
        json.loads(json.dumps(work.values)) == done.values
        and tables.keys() == done.parts.keys()
        and all(tables[name].equals(part.read(folder)) for name, part in done.parts.items())
    )


def _forget(root: Folder, changed: Collection[str]) -> None:
    """Delete steps that depend on changed ones, unfinished steps, whose inputs nobody knows, and records of runs."""
    stages = [root / "steps" / name for name in (root / "steps").names()]
    folders = [stage / name for stage in stages for name in stage.names()]
    outputs = {folder: Output.find(folder) for folder in folders}
    inputs = {
        output.fingerprint: {source["fingerprint"] for source in output.manifest["inputs"].values()}
        for output in outputs.values()
        if output
    }
    stale, before = set(changed), 0
    while len(stale) > before:
        before = len(stale)
        stale |= {fingerprint for fingerprint, sources in inputs.items() if sources & stale}
    for folder, output in outputs.items():
        if output is None or output.fingerprint in stale:
            folder.remove()
    for name in (root / "runs").names():
        run = root / "runs" / name
        record = read_record(run)
        if record and any(place.rpartition("-")[2] in stale for place in record["steps"]):
            run.delete(RECORD)
        (run / "trials").remove()  # of a sweep, which makes them again from the steps that are left
