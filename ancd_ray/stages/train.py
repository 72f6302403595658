"""Train: trains the classes (Section III-C, or another method) in this process, or with Ray Train on several workers.

A single worker on this machine does not use Ray. Otherwise a TorchTrainer starts the group (NCCL on GPUs, gloo on
CPUs). In both cases the training loop writes its own checkpoints to the step's folder, so that killed workers, killed
drivers and runs without Ray are resumed in the same way.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ancd_ray.config.sections import BackboneConfig, TrainConfig
from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder
from ancd_ray.engine.artifacts import Figures, Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context, StageError
from ancd_ray.engine.outputs import Result
from ancd_ray.engine.stage import Stage, unhashed

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone
    from ancd_ray.discovery.anomalyncd.loop import History, Rank
    from ancd_ray.discovery.anomalyncd.sources import ViewSource
    from ancd_ray.discovery.objectives.started import Start

WEIGHTS = "model.safetensors"
_CURVES = "curves.json"  # losses of rank 0 so far
_RESTARTS = 3  # restarts of a worker group after a worker failed


@dataclass(frozen=True)
class Train(Stage):
    """Trains tail and heads.

    The role `views` is the view bank, or the regions themselves where views are drawn afresh. In `train` the keys that
    do not change what is learned (`workers`, `checkpoint_every`, `head`) are at their defaults. Frozen features, and
    with a normal class the scores of images, are read for the classes at which AnomalyNCD starts.
    """

    name: ClassVar[str] = "train"
    version: ClassVar[int] = 5
    resources: ClassVar[Resources] = "model"

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        views: Table
        base_views: Table | None = None
        features: Table | None = None
        class_count: Figures | None = None
        maps: Table | None = None
        normal_scores: Table | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        trained: Files

    train: TrainConfig
    backbone: BackboneConfig
    classes: Classes
    method: str = "anomalyncd"  # a name in `OBJECTIVES`
    workers: int = unhashed(1)
    checkpoint_every: int = unhashed(10)

    @property
    def is_started(self) -> bool:
        """Whether it starts at the classes of a clustering."""
        return self.method == "anomalyncd" and self.train.start == "spectral"

    @property
    def reads(self) -> Sequence[str]:
        """Roles that it reads."""
        scores = ["maps", "normal_scores"] if self.classes.has_normal else []
        return ["views", "base_views", "class_count", *(["features", *scores] if self.is_started else [])]

    @property
    def passes(self) -> int:
        """Epochs."""
        return self.train.epochs

    @property
    def is_training(self) -> bool:
        """Unless it starts workers of its own."""
        return self.workers == 1

    def run(self, context: Context, inputs: In) -> Result:
        """Train; the weights are a file, the loss curves are values.

        Raises
        ------
        StageError
            There are no regions, or training failed.
        """
        from ancd_ray.backbones.loaded import load_cached
        from ancd_ray.discovery.class_number import check_class_count, resolve_class_count

        classes = resolve_class_count(self.classes, inputs.class_count)
        per_region = 1 if self.train.views.fresh else self.train.views.bank or 1
        check_class_count(context.product, inputs.views.num_rows // per_region, classes)
        sources = tuple(table for table in (inputs.views, inputs.base_views) if table is not None and table.num_rows)
        config = self.train.model_copy(update={"checkpoint_every": self.checkpoint_every})
        start = _find_start(inputs, classes, config.seed) if self.is_started else None
        work = _Work(self.method, config, self.backbone, classes, sources, context.folder, start)
        context.progress.total(config.epochs)
        try:
            if self.workers == 1 and not context.runtime.is_remote:
                _train_here(work, context)
            else:
                _train_with_ray(work, context, self.workers)
        except FloatingPointError as error:
            raise StageError(f"product {context.product}: {error}") from error
        curves = context.folder.read_json(_CURVES)
        digest = hashlib.sha256(context.folder.read(WEIGHTS)).hexdigest()
        values = {
            "losses": curves["terms"],
            "head_losses": curves["head_losses"],
            "backbone_digest": load_cached(self.backbone).digest(),
            "base_classes": list(classes.base_classes),
            "n_novel": classes.n_novel,
            "has_normal": classes.has_normal,
        }
        return Result({}, values, {WEIGHTS: digest})


@dataclass(frozen=True)
class _Work:
    """Arguments of training workers; pickled."""

    method: str
    config: TrainConfig
    backbone: BackboneConfig
    classes: Classes
    sources: Sequence[Table]
    folder: Folder
    start: Start | None

    def open_source(self, model: Backbone) -> ViewSource:
        """Open the views, from the bank or fresh."""
        from ancd_ray.discovery.anomalyncd.sources import FreshViews, ViewBank

        if self.config.views.fresh:
            return FreshViews([table.read() for table in self.sources], model)
        return ViewBank([table.read_part(part) for table in self.sources for part in table.parts if part.rows])

    def train(self, rank: Rank, on_epoch: Callable[[History], None]) -> None:
        """Train; rank 0 writes the weights to the step's folder."""
        from safetensors.torch import save

        from ancd_ray.backbones.loaded import load_cached
        from ancd_ray.discovery.anomalyncd.loop import train
        from ancd_ray.discovery.objectives import OBJECTIVES
        from ancd_ray.discovery.objectives.started import Started

        model = load_cached(self.backbone)
        checkpoints = self.folder / "checkpoints"
        objective = OBJECTIVES[self.method](self.config, self.classes)
        if self.start:
            objective = Started(self.config, self.classes, self.start)
        learner, history = train(self.open_source(model), model, objective, checkpoints, rank, on_epoch)
        if rank.index == 0:
            classifies = ("tail.", "heads.")
            state = {k: v.contiguous().cpu() for k, v in learner.state_dict().items() if k.startswith(classifies)}
            self.folder.write(WEIGHTS, save(state))
            self.folder.write_json(_CURVES, _dump_curves(history))


def _find_start(inputs: Train.In, classes: Classes, seed: int) -> Start:
    from ancd_ray.discovery.image_scores import read_scores
    from ancd_ray.discovery.objectives.started import find_start

    assert inputs.features is not None
    scores = read_scores(inputs.features, inputs.maps, inputs.normal_scores)
    return find_start(inputs.features, classes, seed, scores)


def _train_here(work: _Work, context: Context) -> None:
    from ancd_ray.backbones.loaded import pick_device
    from ancd_ray.discovery.anomalyncd.loop import Rank

    shown = 0

    def on_epoch(history: History) -> None:
        nonlocal shown
        context.progress.advance(history.epochs - shown)
        context.progress.note(f"loss {history.terms['total'][-1]:.3f}")
        shown = history.epochs
        context.on_epoch(history)

    work.train(Rank(device=pick_device()), on_epoch)


def _train_with_ray(work: _Work, context: Context, workers: int) -> None:
    cpus, gpus = context.runtime.devices()
    if gpus and gpus < workers:
        raise StageError(f"train.workers={workers} needs as many GPUs; Ray has {gpus}")
    if not gpus and cpus < workers:
        raise StageError(f"train.workers={workers} needs as many CPUs; Ray has {cpus}")
    import ray.train
    from ray.train.torch import TorchTrainer

    storage, path = (context.folder / "ray").location.open()  # with credentials, which its URI does not have
    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"work": work},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=bool(gpus)),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=path,
            storage_filesystem=storage,
            failure_config=ray.train.FailureConfig(max_failures=_RESTARTS),
        ),
    )
    with _Watch(work.folder, context):
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise StageError(f"training failed: {_last_line(error)}") from error


def _ray_worker(config: Mapping[str, Any]) -> None:
    """Train on one rank; Ray Train calls it on all of them."""
    import ray.train

    from ancd_ray.backbones.loaded import pick_device
    from ancd_ray.discovery.anomalyncd.loop import Rank

    work: _Work = config["work"]
    here = ray.train.get_context()
    rank = Rank(here.get_world_rank(), here.get_world_size(), pick_device())
    work.train(rank, lambda history: work.folder.write_json(_CURVES, _dump_curves(history)))


def _dump_curves(history: History) -> dict[str, Any]:
    return {"terms": history.terms, "head_losses": history.head_losses}


class _Watch:
    """Shows the progress of rank 0 in another process, by polling the file of its losses."""

    def __init__(self, folder: Folder, context: Context) -> None:
        self._folder, self._context = folder, context
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _poll(self) -> None:
        from ancd_ray.discovery.anomalyncd.loop import History

        shown = 0
        while not self._end.wait(2.0):
            if self._folder.exists(_CURVES):
                curves = self._folder.read_json(_CURVES)
                history = History(curves["terms"], curves["head_losses"])
                if history.epochs > shown:
                    self._context.progress.advance(history.epochs - shown)
                    self._context.progress.note(f"loss {history.terms['total'][-1]:.3f}")
                    shown = history.epochs
                    self._context.on_epoch(history)


def _last_line(error: BaseException) -> str:
    """Return the last line of an error, which is the message of the innermost one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
