"""Trial of a sweep: runs the steps up to the classification of regions, then evaluates every setting of merging.

It runs in a worker of Tune. It writes the ordinary results of its steps, and a record in the sweep's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.config.sections import MergeConfig
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import column_to_matrix
from ancd_ray.discovery.criterion import mean_silhouette
from ancd_ray.discovery.features.region_features import read_comparison_features
from ancd_ray.engine.artifacts import KINDS, ArtifactSet, Table
from ancd_ray.engine.context import StageError
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.stage import Step
from ancd_ray.method.merging import merge_images
from ancd_ray.method.metrics import cluster_scores

FEWEST_REGIONS = 8  # per product, and two per class: with fewer, settings cannot be compared
OWN = ("trained", "classifier", "region_predictions")  # roles of the steps that trials do not share
_IN_PROCESS = 2**62  # images; a trial runs all of its work in one process


@dataclass(frozen=True)
class Task:
    """Arguments of a trial, pickled to its worker."""

    id: str
    product: str
    settings: Mapping[str, Any]
    merges: Sequence[tuple[Mapping[str, Any], MergeConfig]]
    steps: Sequence[Step]
    artifacts: Mapping[str, str]  # role → fingerprint of the step that makes it
    root: Folder
    records: Folder
    max_quarantined: float
    n_classes: int
    epochs: int
    metric: str


@dataclass(frozen=True)
class Record:
    """Result of a trial: `done` with figures for every setting of merging, or `failed` or `stopped` with a reason."""

    id: str
    product: str
    settings: Mapping[str, Any]
    status: str
    reason: str | None = None
    seconds: float = 0.0  # of training and classification, also if cached
    rows: Sequence[Mapping[str, Any]] = field(default_factory=tuple)  # {"settings": ..., "figures": ...}
    low: int | None = None  # range of an estimated number of classes
    high: int | None = None

    def write(self, folder: Folder) -> None:
        """Write the record to the sweep's folder of records."""
        folder.write_json(f"{self.id}.json", asdict(self))

    def best(self, metric: str) -> float | None:
        """Return the highest value of a metric over the settings of merging; None without figures."""
        values = [row["figures"][metric] for row in self.rows if row["figures"][metric] is not None]
        return max(values, default=None)


def read_records(folder: Folder) -> dict[str, Record]:
    """Read the records of a folder, by id of the trial."""
    names = [name for name in folder.names() if name.endswith(".json")]
    return {name.removesuffix(".json"): Record(**folder.read_json(name)) for name in names}


def run(task: Task, on_epoch: Callable[[Any], None] = lambda _: None) -> Record:
    """Run the unfinished steps of a trial and evaluate it.

    Raises
    ------
    StageError
        A step failed; the message is one line.
    """
    runtime = Runtime(in_process_below=_IN_PROCESS)
    done = run_steps(task.steps, task.root, runtime, Display(task.id), task.max_quarantined, on_epoch)
    artifacts = bind_outputs(task, {fingerprint: step.output for fingerprint, step in done.items()})
    check_regions(task.product, artifacts.table("regions"), task.n_classes)
    if "trained" in artifacts:
        _delete_checkpoints(artifacts.files("trained").folder)
    return make_record(task, artifacts)


def bind_outputs(task: Task, outputs: Mapping[str, Output]) -> ArtifactSet:
    """Collect the artifacts of a trial from outputs by fingerprint."""
    found = {}
    for role, fingerprint in task.artifacts.items():
        if fingerprint in outputs:
            output = outputs[fingerprint]
            found[role] = KINDS[output.manifest["outputs"][role]](output, role)
    return ArtifactSet(found)


def make_record(task: Task, artifacts: ArtifactSet) -> Record:
    """Make the record of a trial whose steps are done."""
    regions = Regions.of(artifacts.table("region_predictions"), artifacts.table("features"))
    rows = [{"settings": dict(settings), "figures": regions.figures(merge)} for settings, merge in task.merges]
    made = {artifacts.artifacts[role].folder.uri: artifacts.artifacts[role].output for role in OWN if role in artifacts}
    seconds = sum(float(output.manifest["seconds"]) for output in made.values())
    number = artifacts.figures("class_count")
    between = (number.get("low"), number.get("high"))
    return Record(task.id, task.product, dict(task.settings), "done", None, round(seconds, 2), rows, *between)


def check_regions(product: str, regions: Table, n_classes: int) -> None:
    """Check that a product has enough regions to compare settings on.

    Raises
    ------
    StageError
        There are too few.
    """
    fewest = max(FEWEST_REGIONS, 2 * n_classes)
    if (n := regions.num_rows) < fewest:
        raise StageError(
            f"product {product} has {n} regions for {n_classes} classes; comparing settings takes {fewest} at least"
        )


def _delete_checkpoints(folder: Folder) -> None:
    """Delete the checkpoints of a finished training."""
    for name in (folder / "checkpoints").names():
        (folder / "checkpoints").delete(name)


@dataclass(frozen=True)
class Regions:
    """The classified regions of a product: N regions of I images, C classes, frozen features (D) of M of them."""

    image_N: NDArray[np.int64]
    labels_I: NDArray[np.object_]
    probs_NC: NDArray[np.float32]
    areas_N: NDArray[np.int64]
    scores_N: NDArray[np.float32]
    has_features_N: NDArray[np.bool_]
    features_MD: NDArray[np.float64]  # of those M

    @classmethod
    def of(cls, predictions: Table, features: Table) -> Regions:
        """Read the tables `region_predictions` and `features`; the latter may cover a sample of the images."""
        columns = ["region_id", "image_id", "label", "probs", "area", "score"]
        table = predictions.read(columns)
        ids = np.asarray(table.column("image_id"))
        _, first, image_N = np.unique(ids, return_index=True, return_inverse=True)
        labels = table.column("label").to_numpy(zero_copy_only=False)[first]
        areas, scores = table.column("area").to_numpy(), table.column("score").to_numpy()
        sampled = features.read(["region_id"]).column("region_id")
        has_features_N = np.asarray(pc.is_in(table.column("region_id"), value_set=sampled.combine_chunks()))
        return cls(
            image_N,
            labels,
            column_to_matrix(table.column("probs")),
            areas,
            scores,
            has_features_N,
            read_comparison_features(features),
        )

    def figures(self, merge: MergeConfig) -> dict[str, float | None]:
        """Compute NMI, ARI and F1 at image level (None without labels), and the unsupervised criterion."""
        rows_N = np.ones(len(self.image_N), bool)
        cls_I = self._merge(self.probs_NC, rows_N, merge).argmax(axis=1)
        sampled_I = np.unique(self.image_N[self.has_features_N])
        criterion = mean_silhouette(self._merge(self.features_MD, self.has_features_N, merge), cls_I[sampled_I])
        known = np.array([label is not None for label in self.labels_I], bool)
        if not known.any():
            return {"nmi": None, "ari": None, "f1": None, "unsupervised": criterion}
        scores = cluster_scores(self.labels_I[known].astype(str), cls_I[known])
        return {"nmi": scores.nmi, "ari": scores.ari, "f1": scores.f1, "unsupervised": criterion}

    def _merge(
        self, values_MK: NDArray[np.floating[Any]], rows_N: NDArray[np.bool_], merge: MergeConfig
    ) -> NDArray[np.float32]:
        """Merge values of some regions to images; images without such regions are omitted."""
        image_M = np.unique(self.image_N[rows_N], return_inverse=True)[1]
        return merge_images(
            image_M, values_MK, self.areas_N[rows_N], merge.tau_alpha, merge.rule, self.scores_N[rows_N]
        )
