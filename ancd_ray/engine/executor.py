"""Runs a plan: step by step, each once; what is finished is taken as it is, what was interrupted is continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ancd_ray.data.store import Folder
from ancd_ray.discovery.anomalyncd.loop import History
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import MANIFEST, Output, finished_shards
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.step import VERSIONS, Step
from ancd_ray.jobs.plan import JobPlan

_LIBRARIES = ("ancd-ray", "ray", "torch", "timm", "numpy", "pyarrow", "opencv-python-headless", "mlflow")


@dataclass(frozen=True)
class StepRun:
    """A step that is done: its output, and whether it was there already."""

    output: Output
    cached: bool

    @property
    def name(self) -> str:
        """The step's name."""
        return str(self.output.manifest["step"])

    @property
    def product(self) -> str:
        """The product that it was done for."""
        return str(self.output.manifest["product"])

    @property
    def seconds(self) -> float:
        """Wall clock of the run that finished it."""
        return float(self.output.manifest["seconds"])

    @property
    def rows(self) -> int:
        """Rows of its main table, or 0."""
        tables = [table for table in self.output.manifest["tables"] if table not in ("quarantine", "listing")]
        return self.output.rows(tables[0]) if tables else 0


def run(plan: JobPlan, runtime: Runtime, display: Display) -> list[StepRun]:
    """All steps of a plan, in order; see `run_steps`."""
    return run_steps(plan.steps, plan.root, runtime, display, plan.job.resources.max_quarantined)


def run_steps(
    steps: Sequence[Step],
    root: Folder,
    runtime: Runtime,
    display: Display,
    max_quarantined: float,
    on_epoch: Callable[[History], None] = lambda _: None,
) -> list[StepRun]:
    """Steps in an order in which each finds its inputs; each result is found or made.

    Raises:
        StageError, RuntimeProblem: a step cannot be done; the steps before it stay.
    """
    done: dict[str, StepRun] = {}
    for step in steps:
        folder = step.folder(root)
        with display.step(step.name, step.product) as progress:
            found = Output.find(folder)
            if found:
                progress.cached()
                done[step.fingerprint] = StepRun(found, cached=True)
                continue
            inputs = {name: done[source.fingerprint].output for name, source in step.inputs.items()}
            context = Context(step.product, folder, inputs, runtime, progress, max_quarantined, on_epoch)
            done[step.fingerprint] = StepRun(_execute(step, context), cached=False)
    return list(done.values())


def _execute(step: Step, context: Context) -> Output:
    start = time.perf_counter()
    result = step.run(context)
    manifest = {
        "step": step.name,
        "product": step.product,
        "fingerprint": step.fingerprint,
        "version": VERSIONS[step.name],
        "config": step.config,
        "inputs": {
            name: {"step": source.name, "fingerprint": source.fingerprint} for name, source in step.inputs.items()
        },
        "tables": {table: [asdict(part) for part in parts] for table, parts in result.tables.items()},
        "files": result.files,
        "values": result.values,
        "seconds": round(time.perf_counter() - start, 2),
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    context.folder.write_json(MANIFEST, manifest)
    found = Output.find(context.folder)
    assert found is not None, "it was just written"
    return found


@cache
def versions() -> dict[str, str]:
    """The libraries that a result depends on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # another distribution of the same package, such as opencv-python
            continue
    return found


# --- what would be done, and why


@dataclass(frozen=True)
class Outlook:
    """A step before anything runs: `cached`, `continue` or `run`, and why."""

    step: Step
    state: str
    why: str


def outlook(plan: JobPlan) -> list[Outlook]:
    """What a run of the plan would do with each step."""
    looks: list[Outlook] = []
    stale: set[str] = set()
    for step in plan.steps:
        folder = step.folder(plan.root)
        if Output.find(folder):
            looks.append(Outlook(step, "cached", ""))
            continue
        stale.add(step.fingerprint)
        shards = len(finished_shards(folder))
        if shards:
            looks.append(Outlook(step, "continue", f"{shards} shards are done"))
        else:
            looks.append(Outlook(step, "run", _why(plan.root, step, stale)))
    return looks


def _why(root: Folder, step: Step, stale: set[str]) -> str:
    """Compares with the newest result of the same step and product."""
    earlier = _newest(root, step)
    if earlier is None:
        return "never done"
    if earlier.manifest["version"] != VERSIONS[step.name]:
        return f"this version of ancd-ray does {step.name} differently"
    if changed := _differences(earlier.manifest["config"], step.config):
        return f"{', '.join(changed)} changed"
    sources = [
        source.name
        for name, source in step.inputs.items()
        if earlier.manifest["inputs"].get(name, {}).get("fingerprint") != source.fingerprint
    ]
    return f"{', '.join(sources)} changed" if sources else "its result is gone"


def _newest(root: Folder, step: Step) -> Output | None:
    parent = root / "steps" / step.name
    names = [name for name in parent.names() if name.rpartition("-")[0] == step.product]
    found = [output for name in names if (output := Output.find(parent / name))]
    return max(found, key=lambda output: str(output.manifest["created_at"]), default=None)


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    """The keys in which two configs differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys: Sequence[str] = sorted({*old, *new})
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{where}.{key}".strip("."))]
    same = old == new or (isinstance(old, list | tuple) and isinstance(new, list | tuple) and list(old) == list(new))
    return [] if same else [where]
