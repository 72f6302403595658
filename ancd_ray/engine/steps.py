"""A step that is about to run: its stage with its inputs, and how its result is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from ancd_ray.data.store import Folder
from ancd_ray.engine.artifacts import Artifact
from ancd_ray.engine.attempts import count_attempt, read_count
from ancd_ray.engine.calls import Resources, run_here
from ancd_ray.engine.context import Context
from ancd_ray.engine.newest import record_newest
from ancd_ray.engine.outputs import MANIFEST, Output, Result
from ancd_ray.engine.progress import Progress, StepProgress
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.shards import Work, run_alone
from ancd_ray.engine.stage import Stage, Step, compute_fingerprint, get_roles
from ancd_ray.engine.versions import read_versions

_ATTEMPTS = "attempts/step.json"


@dataclass(frozen=True, eq=False)
class StepCall:
    """A whole step as one call: a worker runs all of its shards one after another, and commits its result.

    It has what the step needs and no more: a `Step` refers to all steps before it.
    """

    stage: Stage
    product: str
    fingerprint: str
    sources: Mapping[str, Mapping[str, str]]  # role → step and fingerprint, for the manifest
    inputs: Mapping[str, Artifact]
    root: Folder
    folder: Folder
    rows: int
    max_quarantined: float

    @classmethod
    def of(cls, step: Step, root: Folder, outputs: Mapping[str, Output], max_quarantined: float) -> StepCall:
        """Bind the inputs of a step to the outputs that have them, by role."""
        sources = {
            role: {"step": ref.step.name, "fingerprint": ref.step.fingerprint} for role, ref in step.inputs.items()
        }
        inputs = {role: ref.bind(outputs[role]) for role, ref in step.inputs.items()}
        folder, n = step.folder(root), step.n_images
        return cls(step.stage, step.product, step.fingerprint, sources, inputs, root, folder, n, max_quarantined)

    @classmethod
    def of_artifacts(cls, stage: Stage, product: str, inputs: Mapping[str, Artifact], root: Folder) -> StepCall:
        """Make the step of a stage that reads artifacts of finished steps, outside of any plan."""
        read = {role: inputs[role] for role in stage.reads if role in inputs}
        sources = {
            role: {"step": str(each.output.manifest["step"]), "fingerprint": each.output.fingerprint}
            for role, each in read.items()
        }
        keys = {role: (each.output.fingerprint, each.role) for role, each in read.items()}
        fingerprint = compute_fingerprint(stage, product, keys)
        folder = root / "steps" / stage.name / f"{product}-{fingerprint}"
        return cls(stage, product, fingerprint, sources, read, root, folder, 0, 1.0)

    @property
    def resources(self) -> Resources:
        """What its worker needs; it is worth a task of Ray beside others, however light it is."""
        return "images" if self.stage.resources == "light" else self.stage.resources

    @property
    def begun(self) -> int:
        """Attempts at the whole step that did not end."""
        return read_count(self.folder, _ATTEMPTS)

    def is_done(self) -> bool:
        """Whether the step is finished."""
        return Output.find(self.folder) is not None

    def begin(self, runtime: Runtime, progress: Progress, on_epoch: Callable[[Any], None] = lambda _: None) -> Work:
        """Return the work of the stage, which pauses where it has calls for workers."""
        stage = self.stage
        context = Context(
            stage.name, self.product, self.folder, stage.resources, runtime, progress, self.max_quarantined, on_epoch
        )
        result = stage.run(context, stage.In(**self.inputs))
        return (yield from result) if isinstance(result, Generator) else result

    def run(self) -> str:
        """Run the step in this process; returns its last note."""
        progress, start = StepProgress(self.stage.name, self.product), time.perf_counter()
        with count_attempt(self.folder, _ATTEMPTS):
            result = run_alone(self.begin(Runtime(), progress), run_here)
            self.commit(result, time.perf_counter() - start)
        return progress.said

    def commit(self, result: Result, seconds: float) -> Output:
        """Write the manifest, which makes the step a finished one."""
        kinds = get_roles(self.stage.Out)
        manifest = {
            "step": self.stage.name,
            "product": self.product,
            "fingerprint": self.fingerprint,
            "version": self.stage.version,
            "config": self.stage.hashed,
            "inputs": self.sources,
            "outputs": {role: kinds[role].kind for role in self.stage.makes},
            "tables": {table: [asdict(part) for part in parts] for table, parts in result.tables.items()},
            "files": result.files,
            "sizes": _measure(self.folder, result),
            "values": result.values,
            "seconds": round(seconds, 2),
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": read_versions(),
        }
        self.folder.write_json(MANIFEST, manifest)
        record_newest(self.root, manifest)
        return self.find_output()

    def find_output(self) -> Output:
        """Return the result that was just written."""
        found = Output.find(self.folder)
        assert found is not None, "it was just written"
        return found

    def forget_attempts(self) -> None:
        """Delete the count of attempts."""
        self.folder.discard(_ATTEMPTS)


def _measure(folder: Folder, result: Result) -> dict[str, int]:
    """Return the bytes of the files of a result, by name."""
    files = {*result.files, *(part.file for parts in result.tables.values() for part in parts)}
    return {file: stat.size for file, stat in folder.stats().items() if file in files}
