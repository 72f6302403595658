"""Runs steps in order; finished steps are reused, interrupted ones are resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ancd_ray.data.store import Folder
from ancd_ray.engine.context import Context
from ancd_ray.engine.integrity import inspect_folder
from ancd_ray.engine.newest import record_newest
from ancd_ray.engine.outputs import MANIFEST, Output, Result
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.stage import Step, get_roles

LIBRARIES = (
    "ancd-ray",
    "ray",
    "torch",
    "timm",
    "numpy",
    "pyarrow",
    "opencv-python-headless",
    "openvino",
    "scikit-learn",
    "mlflow",
)


@dataclass(frozen=True)
class StepRun:
    """A finished step: its output, whether it was cached, and whether an earlier run had begun it."""

    output: Output
    cached: bool
    resumed: bool = False

    @property
    def name(self) -> str:
        """Name of the step."""
        return str(self.output.manifest["step"])

    @property
    def product(self) -> str:
        """Name of the product."""
        return str(self.output.manifest["product"])

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run that finished it."""
        return float(self.output.manifest["seconds"])

    @property
    def rows(self) -> int:
        """Rows of its main table, or 0."""
        tables = [table for table in self.output.manifest["tables"] if table not in ("quarantine", "listing")]
        return self.output.rows(tables[0]) if tables else 0


def run_steps(
    steps: Sequence[Step],
    root: Folder,
    runtime: Runtime,
    display: Display,
    max_quarantined: float,
    on_epoch: Callable[[Any], None] = lambda _: None,
) -> dict[str, StepRun]:
    """Run the steps that are not finished; the steps must be in dependency order.

    Returns
    -------
    The finished steps by fingerprint, in order.

    Raises
    ------
    StageError, RuntimeProblem
        A step failed; the results of the steps before it are kept.
    """
    done: dict[str, StepRun] = {}
    for step in steps:
        folder = step.folder(root)
        with display.step(step.name, step.product) as progress:
            found = inspect_folder(folder)
            if found.output:
                progress.cached()
                done[step.fingerprint] = StepRun(found.output, cached=True)
                continue
            for damage in found.damage:
                display.warn(f"{step.product} · {step.name}: {damage}; done again")
            resumed = bool(folder.names())
            if folder.exists(MANIFEST):
                folder.delete(MANIFEST)
            sources = {role: ref.bind(done[ref.step.fingerprint].output) for role, ref in step.inputs.items()}
            resources = step.stage.resources
            context = Context(step.name, step.product, folder, resources, runtime, progress, max_quarantined, on_epoch)
            output = _execute(step, context, step.stage.In(**sources))
            record_newest(root, output.manifest)
            done[step.fingerprint] = StepRun(output, cached=False, resumed=resumed)
    return done


def _execute(step: Step, context: Context, inputs: Any) -> Output:
    start = time.perf_counter()
    result = step.stage.run(context, inputs)
    kinds = get_roles(step.stage.Out)
    manifest = {
        "step": step.name,
        "product": step.product,
        "fingerprint": step.fingerprint,
        "version": step.stage.version,
        "config": step.stage.hashed,
        "inputs": {
            role: {"step": ref.step.name, "fingerprint": ref.step.fingerprint} for role, ref in step.inputs.items()
        },
        "outputs": {role: kinds[role].kind for role in step.stage.makes},
        "tables": {table: [asdict(part) for part in parts] for table, parts in result.tables.items()},
        "files": result.files,
        "sizes": _measure(context.folder, result),
        "values": result.values,
        "seconds": round(time.perf_counter() - start, 2),
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": read_versions(),
    }
    context.folder.write_json(MANIFEST, manifest)
    found = Output.find(context.folder)
    assert found is not None, "it was just written"
    return found


def _measure(folder: Folder, result: Result) -> dict[str, int]:
    """Return the bytes of the files of a result, by name."""
    files = {*result.files, *(part.file for parts in result.tables.values() for part in parts)}
    return {file: stat.size for file, stat in folder.stats().items() if file in files}


@cache
def read_versions() -> dict[str, str]:
    """Return the versions of the libraries that a result depends on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # another distribution of the same package, such as opencv-python
            continue
    return found
