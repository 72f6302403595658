"""Classify: the trained model over every region; probabilities and class tokens are kept, so that merging is cheap.

Of several heads one serves. The paper takes the one with the smallest clustering loss; here it is the one whose classes
lie furthest apart in features that the training has not shaped (`method/criterion.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from ancd_ray.backbones.base import Backbone
from ancd_ray.backbones.loaded import backbone
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.discovery.anomalyncd.learner import Learner
from ancd_ray.discovery.anomalyncd.sources import ViewBank, Views
from ancd_ray.discovery.criterion import apart
from ancd_ray.discovery.features.reading import centred
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Output, Result, Shard, Work, aligned
from ancd_ray.engine.runtime import Load
from ancd_ray.method.merging import novel_probs

_BATCH = 32
_COPIED = ("image_id", "product", "label", "area", "score")
_SAMPLE = 2000  # regions by which a head is chosen


def run(context: Context, trunk: BackboneConfig) -> Result:
    """The table `region_predictions`; the value `best_head`, and by which silhouettes it was chosen, if it was."""
    model = context.inputs["train"]
    values: dict[str, Any] = {"best_head": model.values["best_head"]}
    if "describe" in context.inputs:
        values["head_silhouettes"] = _silhouettes(context, backbone(trunk))
        values["best_head"] = _best(values["head_silhouettes"], model.values["head_losses"])
    tables = {"regions": context.inputs["regions"], "views": context.inputs["clean_views"]}
    worker = Classify(trunk, model, values["best_head"])
    return Result.of_shards(context.map(worker, aligned(tables)), values)


@dataclass(frozen=True)
class Classify:
    """A trained model over a shard of regions."""

    trunk: BackboneConfig
    model: Output
    best_head: int
    load: ClassVar[Load] = "model"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `region_predictions`."""
        trunk = backbone(self.trunk)
        regions = shard.table("regions", ["region_id", *_COPIED]).to_pylist()
        if not regions:
            return Work({"region_predictions": []})
        learner, bank = load_learner(self.model, trunk), ViewBank([shard.table("views")])
        n_base = len(self.model.values["base_classes"])
        rows: list[dict[str, Any]] = []
        for start, tokens_BD, probs_HBK in _predictions(bank, learner, n_base, trunk.device):
            rows += self._rows(regions[start : start + _BATCH], tokens_BD, probs_HBK)
        return Work({"region_predictions": rows})

    def _rows(
        self, regions: Sequence[Mapping[str, Any]], tokens_BD: NDArray[np.float32], probs_HBK: NDArray[np.float32]
    ) -> Iterator[dict[str, Any]]:
        probs_BK = probs_HBK[self.best_head]
        for i, region in enumerate(regions):
            yield {
                **region,
                "probs": probs_BK[i].tolist(),
                "embedding": tokens_BD[i].tolist(),
                "head_cls": probs_HBK[:, i].argmax(axis=-1).tolist(),
                "cls": int(probs_BK[i].argmax()),
                "confidence": float(probs_BK[i].max()),
            }


def _silhouettes(context: Context, trunk: Backbone) -> list[float]:
    """How far apart the classes of every head are, by a sample: whole parts, spread over the product."""
    views, described = context.inputs["clean_views"], context.inputs["describe"]
    parts = views.parts("views")
    ends = np.cumsum([part.rows for part in parts])
    chosen = [i for i, part in enumerate(parts) if part.rows][:: max(1, int(ends[-1]) // _SAMPLE)]
    rows_N = np.concatenate([np.arange(ends[i] - parts[i].rows, ends[i]) for i in chosen])
    bank = ViewBank([views.folder.open_arrow(parts[i].file) for i in chosen])
    model = context.inputs["train"]
    n_base = len(model.values["base_classes"])
    found = _predictions(bank, load_learner(model, trunk), n_base, trunk.device)
    cls_HN = np.concatenate([probs_HBK.argmax(axis=-1) for _, _, probs_HBK in found], axis=1)
    features_ND = centred(described, rows_N)
    return [apart(features_ND, cls_N) for cls_N in cls_HN]


def _best(silhouettes: Sequence[float], losses: Sequence[float]) -> int:
    """The head with the highest silhouette; of equal ones the one with the smallest loss."""
    return max(range(len(losses)), key=lambda head: (silhouettes[head], -losses[head]))


@torch.inference_mode()
def _predictions(
    bank: ViewBank, learner: Learner, n_base: int, device: str
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """Batches of a bank of one view a region: where each starts, class tokens (B, D), novel probabilities (H, B, K)."""
    for start in range(0, len(bank.labels), _BATCH):
        regions_B = np.arange(start, min(start + _BATCH, len(bank.labels)))
        views = bank.load(regions_B, np.zeros((1, len(regions_B)), np.int64))
        token_BD = learner.tail(*Views(*(part.to(device) for part in views)))
        logits_HBC = learner.heads(token_BD).float().cpu().numpy()
        yield start, token_BD.float().cpu().numpy(), novel_probs(logits_HBC, n_base)


def load_learner(model: Output, trunk: Backbone) -> Learner:
    """The trained tail and heads on the trunk's device; the projector has done its duty and stays random."""
    values = model.values
    state = load(model.folder.read("model.safetensors"))
    n_heads, n_classes, _ = state["heads.weight_HCD"].shape
    learner = Learner(trunk, n_classes, n_heads, seed=0)
    missing, unexpected = learner.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(name.startswith("projector.") for name in missing), missing
    assert n_classes == len(values["base_classes"]) + values["n_novel"], "a model and its manifest belong together"
    return learner.eval().to(trunk.device)
