"""Classify: the trained model over every region; probabilities and class tokens are kept, so that merging is cheap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load

from ancd_ray.backbones.base import Backbone, inputs
from ancd_ray.config import Backbone as BackboneConfig
from ancd_ray.images import decode_mask, decode_rgb
from ancd_ray.method.merging import novel_probs
from ancd_ray.method.views import clean_view
from ancd_ray.outputs import Output, Result, Shard, Work, aligned
from ancd_ray.runtime import Load
from ancd_ray.stages.context import Context
from ancd_ray.stages.models import backbone
from ancd_ray.training.learner import Learner
from ancd_ray.training.sources import Ints, ViewBank, Views

_BATCH = 32
_COPIED = ("image_id", "product", "label", "area", "score")


def run(context: Context, trunk: BackboneConfig) -> Result:
    """The table `region_predictions`; clean views that an earlier step has encoded need no trunk."""
    worker = Classify(trunk, context.inputs["train"])
    sources = {"regions": context.inputs["regions"]}
    if "clean_views" in context.inputs:
        sources["views"] = context.inputs["clean_views"]
    return Result.of_shards(context.map(worker, aligned(sources)))


@dataclass(frozen=True)
class Classify:
    """A trained model over a shard of regions."""

    trunk: BackboneConfig
    model: Output
    load: ClassVar[Load] = "model"

    def __call__(self, shard: Shard) -> Work:
        """The rows of `region_predictions`."""
        trunk = backbone(self.trunk)
        learner = load_learner(self.model, trunk)
        columns = None if "views" not in shard.inputs else [*_COPIED, "region_id"]
        regions = shard.table("regions", columns).to_pylist()
        bank = ViewBank([shard.table("views")]) if regions and "views" in shard.inputs else None
        rows: list[dict[str, Any]] = []
        for start in range(0, len(regions), _BATCH):
            batch = regions[start : start + _BATCH]
            views = bank.load(*_only_views(start, len(batch))) if bank else _encode(batch, trunk)
            rows += self._classify(batch, Views(*(part.to(trunk.device) for part in views)), learner)
        return Work({"region_predictions": rows})

    @torch.inference_mode()
    def _classify(
        self, regions: Sequence[Mapping[str, Any]], views: Views, learner: Learner
    ) -> Iterator[dict[str, Any]]:
        values = self.model.values
        token_BD = learner.tail(*views)
        logits_HBC = learner.heads(token_BD).float().cpu().numpy()
        probs_HBK = novel_probs(logits_HBC, len(values["base_classes"]))
        probs_BK = probs_HBK[values["best_head"]]
        tokens_BD = token_BD.float().cpu().numpy()
        for i, region in enumerate(regions):
            yield {
                **{key: region[key] for key in ("region_id", *_COPIED)},
                "probs": probs_BK[i].tolist(),
                "embedding": tokens_BD[i].tolist(),
                "head_cls": probs_HBK[:, i].argmax(axis=-1).tolist(),
                "cls": int(probs_BK[i].argmax()),
                "confidence": float(probs_BK[i].max()),
            }


def _only_views(start: int, n: int) -> tuple[Ints, Ints]:
    """Regions start … start + n of a bank, and the number of the only view that each has, (1, n)."""
    return np.arange(start, start + n), np.zeros((1, n), np.int64)


@torch.inference_mode()
def _encode(regions: Sequence[Mapping[str, Any]], trunk: Backbone) -> Views:
    """The clean views of regions behind the trunk."""
    pairs = [clean_view(decode_rgb(r["image"]), decode_mask(r["mask"]), trunk.view_size) for r in regions]
    return Views(*trunk.encode(*inputs(trunk, pairs)))


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
