"""Finds images that changed behind unchanged stamps, and deletes the results that rest on them.

A listing tells changed files by their stamps, size and time of change. Content that is replaced by content of the same
size, with the old time set again (`cp -p`, `rsync --times`, `touch -r`) or within the resolution of the filesystem's
clock, has the same stamp: the cached catalog and what was computed of it are used. `submit --verify` reads every image
that a cached catalog names and compares it with the catalog's digest. Masks and anomaly maps have stamps alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from ancd_ray.data.images import BadImage, read_bytes
from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.stage import Step
from ancd_ray.jobs.plan import JobPlan
from ancd_ray.jobs.results import RECORD, read_record
from ancd_ray.stages.catalog import Catalog

_READ_AT_ONCE = 8  # images


def forget_changed(plan: JobPlan, display: Display) -> None:
    """Delete all results of the output folder that rest on images whose content changed; the caller has its lock."""
    changed = set()
    for step in plan.steps:
        if isinstance(step.stage, Catalog):
            with display.step("verify", step.product):
                if uris := _find_changed(step, plan.root):
                    changed.add(step.fingerprint)
                    display.warn(f"{step.product}: {len(uris)} images changed behind the same stamp, such as {uris[0]}")
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
