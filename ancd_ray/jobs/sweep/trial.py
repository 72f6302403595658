"""A trial: trains and classifies through the ordinary steps, then tries every setting of merging on what came of it.

It runs where Tune puts it. What it leaves is an ordinary result of each step, and one record in the sweep's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.config.sections import MergeConfig
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import matrix
from ancd_ray.discovery.anomalyncd.loop import History
from ancd_ray.discovery.criterion import apart
from ancd_ray.discovery.features.reading import centred
from ancd_ray.engine import executor as pipeline
from ancd_ray.engine.context import StageError
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.step import Step
from ancd_ray.method.merging import merge_images
from ancd_ray.method.metrics import cluster_scores

FEWEST_REGIONS = 8  # of a product, and two for every class: with fewer, one setting is as good as another
_IN_PROCESS = 2**62  # images: a trial has one process for all of its work


@dataclass(frozen=True)
class Task:
    """All that a trial needs to know; it travels."""

    id: str
    product: str
    settings: Mapping[str, Any]
    merges: Sequence[tuple[Mapping[str, Any], MergeConfig]]
    steps: Sequence[Step]
    root: Folder
    records: Folder
    max_quarantined: float
    n_classes: int
    epochs: int
    metric: str


@dataclass(frozen=True)
class Record:
    """What came of a trial: `done` with figures for every setting of merging, or `failed` or `stopped` and why."""

    id: str
    product: str
    settings: Mapping[str, Any]
    status: str
    reason: str | None = None
    seconds: float = 0.0  # of training and classification, whenever that was
    rows: Sequence[Mapping[str, Any]] = field(default_factory=tuple)  # {"settings": ..., "figures": ...}

    def write(self, folder: Folder) -> None:
        """Leaves it in the sweep's folder."""
        folder.write_json(f"{self.id}.json", asdict(self))

    def best(self, metric: str) -> float | None:
        """The highest value of a metric over the settings of merging."""
        values = [row["figures"][metric] for row in self.rows if row["figures"][metric] is not None]
        return max(values, default=None)


def records(folder: Folder) -> dict[str, Record]:
    """The trials that have ended, by their id."""
    names = [name for name in folder.names() if name.endswith(".json")]
    return {name.removesuffix(".json"): Record(**folder.read_json(name)) for name in names}


def run(task: Task, on_epoch: Callable[[History], None] = lambda _: None) -> Record:
    """Does what is not done yet, and evaluates.

    Raises:
        StageError: it cannot be done; one line.
    """
    runtime = Runtime(in_process_below=_IN_PROCESS)
    runs = pipeline.run_steps(task.steps, task.root, runtime, Display(task.id), task.max_quarantined, on_epoch)
    outputs = {run.name: run.output for run in runs if run.product == task.product}
    too_few(task.product, outputs["regions"], task.n_classes)
    _forget_checkpoints(outputs["train"].folder)
    return finished(task, outputs["describe"], outputs["train"], outputs["classify"])


def finished(task: Task, described: Output, trained: Output, classified: Output) -> Record:
    """The record of a trial whose steps are done."""
    regions = Regions.of(classified, described)
    rows = [{"settings": dict(settings), "figures": regions.figures(merge)} for settings, merge in task.merges]
    seconds = float(trained.manifest["seconds"]) + float(classified.manifest["seconds"])
    return Record(task.id, task.product, dict(task.settings), "done", None, round(seconds, 2), rows)


def too_few(product: str, regions: Output, n_classes: int) -> None:
    """Whether a product has enough regions to compare settings on.

    Raises:
        StageError: it has not.
    """
    fewest = max(FEWEST_REGIONS, 2 * n_classes)
    if (n := regions.rows("regions")) < fewest:
        raise StageError(
            f"product {product} has {n} regions for {n_classes} classes; comparing settings takes {fewest} at least"
        )


def _forget_checkpoints(folder: Folder) -> None:
    """A finished training needs them no more, and a sweep has many."""
    for name in (folder / "checkpoints").names():
        (folder / "checkpoints").delete(name)


@dataclass(frozen=True)
class Regions:
    """The classified regions of a product: N regions of I images, C classes, frozen features of width D."""

    image_N: NDArray[np.int64]
    labels_I: NDArray[np.object_]
    probs_NC: NDArray[np.float32]
    areas_N: NDArray[np.int64]
    scores_N: NDArray[np.float32]
    features_ND: NDArray[np.float64]

    @classmethod
    def of(cls, classified: Output, described: Output) -> Regions:
        """From the tables `region_predictions` and `descriptors`, which have their rows in the same order."""
        columns = ["image_id", "label", "probs", "area", "score"]
        table = classified.table("region_predictions", columns)
        ids = np.asarray(table.column("image_id"))
        _, first, image_N = np.unique(ids, return_index=True, return_inverse=True)
        labels = table.column("label").to_numpy(zero_copy_only=False)[first]
        areas, scores = table.column("area").to_numpy(), table.column("score").to_numpy()
        return cls(image_N, labels, matrix(table.column("probs")), areas, scores, centred(described))

    def figures(self, merge: MergeConfig) -> dict[str, float | None]:
        """NMI, ARI and F1 at image level (None without labels), and the criterion that needs none."""
        probs_IC = self._merged(self.probs_NC, merge)
        cls_I = probs_IC.argmax(axis=1)
        criterion = apart(self._merged(self.features_ND, merge), cls_I)
        known = np.array([label is not None for label in self.labels_I], bool)
        if not known.any():
            return {"nmi": None, "ari": None, "f1": None, "unsupervised": criterion}
        scores = cluster_scores(self.labels_I[known].astype(str), cls_I[known])
        return {"nmi": scores.nmi, "ari": scores.ari, "f1": scores.f1, "unsupervised": criterion}

    def _merged(self, values_NK: NDArray[np.floating[Any]], merge: MergeConfig) -> NDArray[np.float32]:
        return merge_images(self.image_N, values_NK, self.areas_N, merge.tau_alpha, merge.rule, self.scores_N)
