"""Select head: selects the head that classifies among the trained ones.

The paper selects the head with the smallest clustering loss (Section III-C3). The default is the head whose classes
have the highest mean silhouette in frozen features (`discovery/criterion.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.roles import Classes, make_normal_id
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result
from ancd_ray.engine.stage import Stage, unhashed

if TYPE_CHECKING:
    from ancd_ray.discovery.anomalyncd.sources import ViewBank
    from ancd_ray.discovery.classifiers import HeadsClassifier

TRAINED = "model.safetensors"  # file of the stage `train`


@dataclass(frozen=True)
class SelectHead(Stage):
    """Makes a classifier of the trained tail and heads, with the selected head.

    `corrections` and `known` are as in `cluster`.
    """

    name: ClassVar[str] = "select_head"
    version: ClassVar[int] = 2

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        trained: Files
        clean_views: Table
        features: Table

    class Out:
        """Artifacts that the stage makes, by role."""

        classifier: Files

    head: Literal["silhouette", "loss"]
    backbone: BackboneConfig
    corrections: tuple[tuple[str, str], ...] = ()
    known: tuple[tuple[str, str], ...] = unhashed(())

    def run(self, context: Context, inputs: In) -> Result:
        """Select the head; the value `head_silhouettes` has the mean silhouette of each head."""
        from safetensors.torch import load

        from ancd_ray.backbones.loaded import load_cached
        from ancd_ray.discovery.anomalyncd.sources import ViewBank
        from ancd_ray.discovery.classifiers import HeadsClassifier, load_learner, predict_heads
        from ancd_ray.discovery.criterion import mean_silhouette
        from ancd_ray.discovery.features.calibration import Calibration
        from ancd_ray.discovery.features.region_features import read_comparison_features
        from ancd_ray.discovery.novelty import Novelty

        trained, views, features = inputs.trained.values, inputs.clean_views, inputs.features
        classes = Classes(tuple(trained["base_classes"]), trained["n_novel"], trained["has_normal"])
        state = load(inputs.trained.read(TRAINED))
        # the regions that have features
        sampled = [_take_sampled(views, features, i) for i in range(len(views.parts))]
        bank = ViewBank([table for table in sampled if table.num_rows])
        backbone = load_cached(self.backbone)
        found = predict_heads(bank, load_learner(state, backbone, classes), classes.n_base, backbone.device)
        cls_HN = np.concatenate([probs_HBK.argmax(axis=-1) for _, probs_HBK in found], axis=1)
        losses = trained["head_losses"]
        values: dict[str, Any] = {"n_novel": classes.n_novel, "has_normal": classes.has_normal}
        head = int(np.argmin(losses))
        if self.head == "silhouette":
            features_ND = read_comparison_features(features)
            silhouettes = [mean_silhouette(features_ND, cls_N) for cls_N in cls_HN]
            # of equal silhouettes, the one with the smallest loss
            head = max(range(len(losses)), key=lambda index: (silhouettes[index], -losses[index]))
            values["head_silhouettes"] = silhouettes
        values["served_head"] = head
        tokens_ND = bank.average_tokens()
        novelty = Novelty.fit(tokens_ND, cls_HN[head], Calibration.fit(tokens_ND, [bank.dim]), seed=0)
        classifier = HeadsClassifier(classes, trained["backbone_digest"], state, head, novelty)
        if self.corrections:
            ids = [region for table in sampled for region in table.column("region_id").to_pylist()]
            cls_of = {region: int(index) for region, index in zip(ids, cls_HN[head], strict=True)}
            learner = load_learner(state, backbone, classes)

            def classify(bank: ViewBank) -> list[int]:
                probs = [own[head] for _, own in predict_heads(bank, learner, classes.n_base, backbone.device)]
                return [int(index) for index in np.concatenate(probs).argmax(axis=-1)]

            classifier, corrected = self._correct(classifier, views, cls_of, classify, make_normal_id(context.product))
            values |= {**corrected, "n_novel": classifier.classes.n_novel}
        files = classifier.save()
        for name, data in files.items():
            context.folder.write(name, data)
        return Result({}, values, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})

    def _correct(
        self,
        classifier: HeadsClassifier,
        views: Table,
        found: Mapping[str, int],
        classify: Callable[[ViewBank], list[int]],
        normal_id: str,
    ) -> tuple[HeadsClassifier, dict[str, Any]]:
        """Give corrected regions their classes, and find known classes again, whether or not regions are sampled."""
        from ancd_ray.discovery.anomalyncd.sources import ViewBank
        from ancd_ray.discovery.corrections import choose_known, correct_classifier

        given = dict(self.corrections)
        known = {region: own for region, own in self.known if region not in given}
        others = set(choose_known(known, views.read(["region_id"]).column("region_id").to_pylist())) - found.keys()
        ids, own = _take_regions(views, given)
        tokens_CD = ViewBank(own).average_tokens() if own else np.empty((0, 0), np.float32)
        other_ids, own = _take_regions(views, others)
        found = {**found, **dict(zip(other_ids, classify(ViewBank(own)) if own else [], strict=True))}
        return correct_classifier(classifier, given, ids, tokens_CD, found, known, normal_id)


def _take_regions(views: Table, wanted: Collection[str]) -> tuple[list[str], list[pa.Table]]:
    """Read the ids and the clean views of some regions, by parts."""
    values, own = pa.array(list(wanted), pa.string()), []
    for part in views.parts:
        if part.rows and pc.any(pc.is_in(views.read_part(part, ["region_id"]).column(0), value_set=values)).as_py():
            table = views.read_part(part)
            own.append(table.filter(pc.is_in(table.column("region_id"), value_set=values)))
    return [region for table in own for region in table.column("region_id").to_pylist()], own


def _take_sampled(views: Table, features: Table, index: int) -> pa.Table:
    """Read the clean views of a part, without regions that have no features."""
    table = views.read_part(views.parts[index])
    region_ids = features.read_part(features.parts[index], ["region_id"]).column("region_id")
    if len(region_ids) == table.num_rows:
        return table
    return table.filter(pc.is_in(table.column("region_id"), value_set=region_ids.combine_chunks()))
