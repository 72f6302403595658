"""Results of a job: artifacts of each product by role, and the steps that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ancd_ray.config.job import Job
from ancd_ray.config.load import parse, validate
from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from ancd_ray.engine.artifacts import KINDS, ArtifactSet
from ancd_ray.engine.executor import StepRun
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.stage import Flow
from ancd_ray.engine.versions import read_versions
from ancd_ray.jobs.plan import JobPlan

RECORD = "run.json"


@dataclass(frozen=True)
class JobResults:
    """Finished steps in order, and artifacts by role of each product and of the base set, if any."""

    steps: Sequence[StepRun]
    products: Mapping[str, ArtifactSet]
    base: ArtifactSet | None

    @classmethod
    def of(cls, plan: JobPlan, done: Mapping[str, StepRun]) -> JobResults:
        """Collect the artifacts of a plan whose steps are done."""
        products = {product.name: bind(product.flow, done) for product in plan.products}
        base = next((product.base for product in plan.products if product.base and product.base.steps), None)
        return cls(list(done.values()), products, bind(base, done) if base else None)

    @classmethod
    def from_record(cls, root: Folder, record: Mapping[str, Any]) -> JobResults | None:
        """Find the results of a run's record; None if some were deleted."""
        outputs = {place: Output.find(root / place) for place in record["steps"]}
        found = {place: output for place, output in outputs.items() if output}
        if len(found) < len(outputs):
            return None

        def read(places: Mapping[str, str]) -> ArtifactSet:
            kinds = {role: KINDS[found[place].manifest["outputs"][role]] for role, place in places.items()}
            return ArtifactSet({role: kinds[role](found[place], role) for role, place in places.items()})

        products = {name: read(places) for name, places in record["products"].items()}
        base = read(record["base"]) if record["base"] else None
        return cls([StepRun(output, cached=True) for output in found.values()], products, base)

    def record(self) -> dict[str, Any]:
        """Make the content of `run.json`: the folders of the steps, relative to the output folder, which may move."""
        return {
            "steps": [_locate(step.output) for step in self.steps],
            "products": {name: _locate_all(artifacts) for name, artifacts in self.products.items()},
            "base": _locate_all(self.base) if self.base else None,
            "versions": read_versions(),
        }

    @property
    def every(self) -> list[ArtifactSet]:
        """Artifacts of the base set, if any, and of the products."""
        return [*([self.base] if self.base else []), *self.products.values()]


def open_run(folder: Folder) -> tuple[Job, JobResults]:
    """Open the folder of a finished run: its job, without credentials, and its results.

    Raises
    ------
    StoreError
        The folder is not a run folder, or results of steps were deleted.
    """
    job = open_job(folder)
    root = locate_root(folder)
    results = JobResults.from_record(root, read_record(folder) or {})
    if results is None:
        raise StoreError(f"{folder}: the steps of this run are no longer in {root}; submit the job again")
    return job, results


def open_job(folder: Folder) -> Job:
    """Read the job of a finished discovery, without credentials.

    Raises
    ------
    StoreError
        The folder is not that of a discovery.
    """
    record = read_record(folder)
    if record is None:
        raise StoreError(f"{folder}: not a run folder (it has no {RECORD}); `ancd-ray submit` prints the one it made")
    if record.get("mode") == "classify":
        raise StoreError(f"{folder}: has images classified with a model; `ancd-ray submit` alone makes its report")
    return validate(parse(folder.read("job.yaml"), f"{folder}/job.yaml"))


def read_record(folder: Folder) -> dict[str, Any] | None:
    """Read the record of a run; None if there is none, or it cannot be read."""
    try:
        record: dict[str, Any] = folder.read_json(RECORD)
        return record if isinstance(record["steps"], list) and record["products"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def locate_root(run_folder: Folder) -> Folder:
    """Return the output folder that a run folder lies in."""
    return run_folder.parent.parent


def bind(flow: Flow, done: Mapping[str, StepRun]) -> ArtifactSet:
    """Collect the artifacts of the finished steps of a flow."""
    refs = {role: ref for role, ref in flow.artifacts.items() if ref.step.fingerprint in done}
    return ArtifactSet({role: ref.bind(done[ref.step.fingerprint].output) for role, ref in refs.items()})


def _locate_all(artifacts: ArtifactSet) -> dict[str, str]:
    return {role: _locate(artifact.output) for role, artifact in artifacts.artifacts.items()}


def _locate(output: Output) -> str:
    return "/".join(output.folder.uri.split("/")[-3:])
