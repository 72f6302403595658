"""The pass with a finished model (`mode: classify`), against the steps of a discovery over the same images.

    python benchmarks/classify_pass.py jobs/mtd.yaml data.root=/archive data.base=null discovery.method=linked
    python benchmarks/classify_pass.py jobs/mtd.yaml data.root=/archive train.epochs=5 --images 240 --turns 5

The discovery is run first, unless `output=` has it already. Then the images are classified in turns by one step, which
reads and decodes each file once, and by catalog, detect, regions, encode, classify and merge, which hand on files; all
in one process that has the model loaded, with the same detector state and classifier. The rows have to be the same. A
last turn of each counts how often the kernel sees the files of the archive opened.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from opens import count_opens
from rich.console import Console
from timing import describe_machine

from ancd_ray.config.load import load
from ancd_ray.config.overrides import apply_overrides
from ancd_ray.data.store import Folder, digest
from ancd_ray.data.tables import SCHEMAS, conform
from ancd_ray.engine.executor import StepRun, run_steps
from ancd_ray.engine.progress import Display, StepProgress
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.stage import Flow, Step
from ancd_ray.jobs.flows import SAMPLED_FEATURES
from ancd_ray.jobs.plan import JobPlan, ProductPlan, make
from ancd_ray.jobs.run import run
from ancd_ray.models.classify_images import ClassifyImages
from ancd_ray.models.find import find_model
from ancd_ray.models.model import Model
from ancd_ray.stages.catalog import Catalog
from ancd_ray.stages.classify import Classify
from ancd_ray.stages.detect import Detect
from ancd_ray.stages.encode import Encode
from ancd_ray.stages.merge import Merge
from ancd_ray.stages.regions import Regions

TABLES = ("region_predictions", "image_predictions")


class Clock(Display):
    """A display that measures wall and CPU seconds of each step instead of showing it."""

    def __init__(self) -> None:
        super().__init__("turn", Console(file=io.StringIO(), force_terminal=True))
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def begin(self, name: str, product: str) -> StepProgress:
        """Begin to measure a step."""
        self._started = time.perf_counter(), time.process_time()
        return super().begin(name, product)

    def end(self, progress: StepProgress, state: str = "done", seconds: float | None = None) -> None:
        """Measure a step; one begins when the one before it has ended."""
        wall, cpu = self._started
        self.wall[progress.name], self.cpu[progress.name] = time.perf_counter() - wall, time.process_time() - cpu
        super().end(progress, state, seconds)


def main() -> None:
    """Print the medians of both forms, their ratio, and how often files are opened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--images", type=int, default=120, help="at most, evenly chosen of the first product")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="then the pass in the workers of Ray, on all cores")
    given = parser.parse_args()
    job = load(given.job, ["resources.in_process_below=1000000", *given.overrides])
    display = Display("discovery")
    with display.running():
        folder = run(job, None, display)
    plan = make(job)
    product = plan.products[0]
    queries = [row for row in product.listing.rows if row["role"] == "query"]
    rows = queries[:: max(1, len(queries) // given.images)][: given.images]
    known, steps = build_steps(product, rows, Model.load(find_model(str(folder), product.name)))
    fused = build_pass(plan, folder, product.name, rows)

    turns = [(measure(plan.root, [], [fused]), measure(plan.root, known, steps)) for _ in range(given.turns + 1)][1:]
    print(describe_machine())
    print(f"{len(rows)} images, {turns[0][0].regions} regions, {job.discovery.method}; medians of {given.turns} turns")
    print("| step | wall, s | CPU, s |\n|---|---|---|")
    for step in [fused, *steps]:
        turn = [one if step is fused else other for one, other in turns]
        wall, cpu = (statistics.median(getattr(each, kind)[step.name] for each in turn) for kind in ("wall", "cpu"))
        print(f"| {step.name} | {wall:.2f} | {cpu:.2f} |")
    for kind in ("wall", "cpu"):
        pairs = [(sum(getattr(one, kind).values()), sum(getattr(other, kind).values())) for one, other in turns]
        pass_s, steps_s = (statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(other / one for one, other in pairs)
        print(
            f"{kind}: the pass {pass_s:.2f} s ({len(rows) / pass_s:.1f} images/s), the steps {steps_s:.2f} s "
            f"({len(rows) / steps_s:.1f} images/s): {ratio:.2f}×"
        )
    for name, before, todo in (("the pass", [], [fused]), ("the steps", known, steps)):
        with count_opens(Path(job.data.root) / product.listing.config.path) as opened:
            measure(plan.root, before, todo)
        print(f"{name}: files by how often they are opened: {dict(Counter(opened.values()))}")
    if given.ray:
        with Runtime(in_process_below=0) as runtime:
            cpus, _ = runtime.devices()
            measure(plan.root, [], [fused], runtime)  # workers load the model
            seconds = [sum(measure(plan.root, [], [fused], runtime).wall.values()) for _ in range(given.turns)]
        print(f"Ray, {cpus} workers that have the model: {len(rows) / statistics.median(seconds):.1f} images/s")


@dataclass(frozen=True)
class Turn:
    """Wall and CPU seconds by step, and the number of regions."""

    wall: Mapping[str, float]
    cpu: Mapping[str, float]
    regions: int


def build_steps(
    product: ProductPlan, rows: Sequence[Mapping[str, object]], model: Model
) -> tuple[list[Step], list[Step]]:
    """Return the steps of the discovery that made detector and classifier, and those that apply them to the rows."""
    job, made = apply_overrides(product.job, product.listing.config), product.flow
    is_trained = job.discovery.trains
    flow = Flow(product.name)
    flow.artifacts = {role: made.artifacts[role] for role in ("detector_state", "classifier") if role in made.artifacts}
    backbone = job.backbone.for_images
    flow.add(Catalog(digest(list(rows)), product.listing.config.bits, rows))
    flow.add(Detect(job.detector, backbone if job.detector.resources == "model" else None))
    span = model.score_range
    mebin = job.mebin.model_copy(update={"range": (span.low, span.high)}) if span else job.mebin
    flow.add(Regions(mebin, job.detector.maps_are_masks))
    flow.add(Encode(job.backbone, keep_views=is_trained, max_features=SAMPLED_FEATURES if is_trained else None))
    stage = next(step.stage for step in made.steps if step.name == Classify.name)
    flow.add(stage)
    flow.add(Merge(job.merge, model.classes.has_normal))
    return product.steps, flow.steps


def build_pass(plan: JobPlan, folder: Folder, product: str, rows: Sequence[Mapping[str, object]]) -> Step:
    """Write the rows as a partition and return the step that applies the model to it."""
    place = plan.root / "benchmark"
    place.write_table("rows.parquet", conform(rows, SCHEMAS["listing"]))
    model, listing = find_model(str(folder), product), f"{place}/rows.parquet"
    return Step(ClassifyImages("0" * 16, digest(list(rows))[:12], "none", model, listing=listing), product, {})


def measure(root: Folder, known: Sequence[Step], steps: Sequence[Step], runtime: Runtime | None = None) -> Turn:
    """Run steps afresh, after known ones that are done, and delete their results; by default in this process."""
    clock = Clock()
    done = run_steps([*known, *steps], root, runtime or Runtime(in_process_below=1_000_000), clock, max_quarantined=1.0)
    tables = {table: _read(done, steps, table) for table in TABLES}
    assert all(_EXPECTED.setdefault(table, found).equals(found) for table, found in tables.items()), "same rows"
    for step in steps:
        step.folder(root).remove()
    names = {step.name for step in steps}
    wall, cpu = ({name: values[name] for name in names} for values in (clock.wall, clock.cpu))
    return Turn(wall, cpu, tables["region_predictions"].num_rows)


_EXPECTED: dict[str, pa.Table] = {}


def _read(done: Mapping[str, StepRun], steps: Sequence[Step], table: str) -> pa.Table:
    step = next(step for step in steps if table in step.outputs)
    rows = done[step.fingerprint].output.table(table)
    return rows.sort_by(rows.column_names[0])


if __name__ == "__main__":
    main()
