"""Train: learns the classes (Section III-C) in this process, or with Ray Train on several workers.

One worker on this machine needs no cluster. Otherwise a TorchTrainer starts the group (NCCL on GPUs, gloo on CPUs). The
checkpoints are the loop's own files in the step's folder in both cases, so that one mechanism serves a killed worker, a
killed driver, and a run without Ray.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import save

from ancd_ray.backbones.base import Backbone
from ancd_ray.backbones.loaded import backbone, device
from ancd_ray.config.sections import BackboneConfig, TrainConfig
from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder
from ancd_ray.discovery.anomalyncd.loop import History, Rank, train
from ancd_ray.discovery.anomalyncd.sources import FreshViews, ViewBank, ViewSource
from ancd_ray.discovery.features.reading import counted
from ancd_ray.engine.context import Context, StageError
from ancd_ray.engine.outputs import Output, Result

WEIGHTS = "model.safetensors"
_CURVES = "curves.json"  # what rank 0 tells of its progress
_RESTARTS = 3  # of a worker group that lost a member


@dataclass(frozen=True)
class _Work:
    """All that a worker needs to know; it travels to the workers."""

    config: TrainConfig
    trunk: BackboneConfig
    classes: Classes
    sources: tuple[Output, ...]
    folder: Folder

    def source(self, model: Backbone) -> ViewSource:
        """The views, from the bank or fresh."""
        if self.config.views.fresh:
            return FreshViews([output.table("regions") for output in self.sources], model)
        parts = [(output.folder, part.file) for output in self.sources for part in output.parts("views") if part.rows]
        return ViewBank([folder.open_arrow(file) for folder, file in parts])

    def train(self, rank: Rank, on_epoch: Any) -> None:
        """Trains, and on rank 0 leaves the model in the step's folder."""
        model = backbone(self.trunk)
        learner, history = train(
            self.source(model), model, self.classes, self.config, self.folder / "checkpoints", rank, on_epoch
        )
        if rank.index == 0:
            state = {k: v.contiguous().cpu() for k, v in learner.state_dict().items() if not k.startswith("projector.")}
            self.folder.write(WEIGHTS, save(state))
            self.folder.write_json(_CURVES, _told(history))


def run(context: Context, config: TrainConfig, trunk: BackboneConfig, classes: Classes) -> Result:
    """The trained tail and heads as `model.safetensors`, the loss curves as values.

    Raises:
        StageError: there is too little to learn from, or training broke down.
    """
    classes = counted(classes, context.inputs)
    table = "regions" if config.views.fresh else "views"
    sources = tuple(output for name, output in context.inputs.items() if output.rows(table))
    if not any(output.rows(table) for name, output in context.inputs.items() if name == "novel"):
        raise StageError(f"product {context.product} has no region to learn from")
    work = _Work(config, trunk, classes, sources, context.folder)
    context.progress.total(config.epochs)
    try:
        if config.workers == 1 and not context.runtime.is_remote:
            _alone(work, context)
        else:
            _with_ray(work, context)
    except FloatingPointError as error:
        raise StageError(f"product {context.product}: {error}") from error
    curves = context.folder.read_json(_CURVES)
    digest = hashlib.sha256(context.folder.read(WEIGHTS)).hexdigest()
    values = {
        "losses": curves["terms"],
        "head_losses": curves["head_losses"],
        "best_head": curves["best_head"],
        "backbone_digest": backbone(trunk).digest(),
        "base_classes": list(classes.base_classes),
        "n_novel": classes.n_novel,
        "has_normal": classes.has_normal,
    }
    return Result({}, values, {WEIGHTS: digest})


def _alone(work: _Work, context: Context) -> None:
    shown = 0

    def on_epoch(history: History) -> None:
        nonlocal shown
        context.progress.advance(history.epochs - shown)
        context.progress.note(f"loss {history.terms['total'][-1]:.3f}")
        shown = history.epochs
        context.on_epoch(history)

    work.train(Rank(device=device()), on_epoch)


def _with_ray(work: _Work, context: Context) -> None:
    cpus, gpus = context.runtime.devices()
    workers = work.config.workers
    if gpus and gpus < workers:
        raise StageError(f"train.workers={workers} wants as many GPUs; Ray has {gpus}")
    if not gpus and cpus < workers:
        raise StageError(f"train.workers={workers} wants as many CPUs; Ray has {cpus}")
    import ray.train
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"work": work},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=bool(gpus)),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=f"{context.folder.uri}/ray",
            failure_config=ray.train.FailureConfig(max_failures=_RESTARTS),
        ),
    )
    with _Watch(work.folder, context):
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise StageError(f"training broke down: {_cause(error)}") from error


def _ray_worker(config: Mapping[str, Any]) -> None:
    """What Ray Train runs on every rank."""
    import ray.train

    work: _Work = config["work"]
    here = ray.train.get_context()
    rank = Rank(here.get_world_rank(), here.get_world_size(), device())
    work.train(rank, lambda history: work.folder.write_json(_CURVES, _told(history)))


def _told(history: History) -> dict[str, Any]:
    return {"terms": history.terms, "head_losses": history.head_losses, "best_head": history.best_head}


class _Watch:
    """Tells of the progress of rank 0, which runs elsewhere, by what it writes."""

    def __init__(self, folder: Folder, context: Context) -> None:
        self._folder, self._context = folder, context
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
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


def _cause(error: BaseException) -> str:
    """The last line of the innermost error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
