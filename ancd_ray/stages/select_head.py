"""Select head: selects the head that classifies among the trained ones.

The paper selects the head with the smallest clustering loss (Section III-C3). The default is the head whose classes
have the highest mean silhouette in frozen features (`discovery/criterion.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.roles import Classes
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result
from ancd_ray.engine.stage import Stage

TRAINED = "model.safetensors"  # file of the stage `train`


@dataclass(frozen=True)
class SelectHead(Stage):
    """Makes a classifier of the trained tail and heads, with the selected head."""

    name: ClassVar[str] = "select_head"
    version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        trained: Files
        clean_views: Table | None = None
        features: Table | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        classifier: Files

    head: Literal["silhouette", "loss"]
    backbone: BackboneConfig

    @property
    def reads(self) -> Sequence[str]:
        """Roles that it reads."""
        return ["trained", "clean_views", "features"] if self.head == "silhouette" else ["trained"]

    def run(self, context: Context, inputs: In) -> Result:
        """Select the head; the value `head_silhouettes` has the mean silhouette of each head."""
        from safetensors.torch import load

        from ancd_ray.discovery.classifiers import HeadsClassifier

        trained = inputs.trained.values
        classes = Classes(tuple(trained["base_classes"]), trained["n_novel"], trained["has_normal"])
        state = load(inputs.trained.read(TRAINED))
        losses = trained["head_losses"]
        values: dict[str, Any] = {"n_novel": classes.n_novel, "has_normal": classes.has_normal}
        head = int(np.argmin(losses))
        if inputs.clean_views is not None and inputs.features is not None:
            silhouettes = self._judge(state, classes, inputs.clean_views, inputs.features)
            # of equal silhouettes, the one with the smallest loss
            head = max(range(len(losses)), key=lambda index: (silhouettes[index], -losses[index]))
            values["head_silhouettes"] = silhouettes
        values["served_head"] = head
        files = HeadsClassifier(classes, trained["backbone_digest"], state, head).save()
        for name, data in files.items():
            context.folder.write(name, data)
        return Result({}, values, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})

    def _judge(self, state: Any, classes: Classes, views: Table, features: Table) -> list[float]:
        """Compute the mean silhouette of the classes of each head, over the regions that have features."""
        from ancd_ray.backbones.loaded import load_cached
        from ancd_ray.discovery.anomalyncd.sources import ViewBank
        from ancd_ray.discovery.classifiers import load_learner, predict_heads
        from ancd_ray.discovery.criterion import mean_silhouette
        from ancd_ray.discovery.features.region_features import read_comparison_features

        sampled = [_take_sampled(views, features, i) for i in range(len(views.parts))]
        backbone = load_cached(self.backbone)
        learner = load_learner(state, backbone, classes)
        bank = ViewBank([table for table in sampled if table.num_rows])
        found = predict_heads(bank, learner, classes.n_base, backbone.device)
        cls_HN = np.concatenate([probs_HBK.argmax(axis=-1) for _, probs_HBK in found], axis=1)
        features_ND = read_comparison_features(features)
        return [mean_silhouette(features_ND, cls_N) for cls_N in cls_HN]


def _take_sampled(views: Table, features: Table, index: int) -> pa.Table:
    """Read the clean views of a part, without regions that have no features."""
    table = views.read_part(views.parts[index])
    region_ids = features.read_part(features.parts[index], ["region_id"]).column("region_id")
    if len(region_ids) == table.num_rows:
        return table
    return table.filter(pc.is_in(table.column("region_id"), value_set=region_ids.combine_chunks()))
