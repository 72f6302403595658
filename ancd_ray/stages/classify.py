"""Classify: classifies every region and stores probabilities and embeddings, so that merging is cheap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow.compute as pc

from ancd_ray.config.sections import BackboneConfig
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import column_to_matrix
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.calls import Resources
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result, Shard, ShardResult, align_shards
from ancd_ray.engine.shards import Work
from ancd_ray.engine.stage import Stage

if TYPE_CHECKING:
    import pyarrow as pa

    from ancd_ray.discovery.classifiers import Predicted

_COPIED = ("region_id", "image_id", "product", "label", "area", "score")


@dataclass(frozen=True)
class Classify(Stage):
    """Classifies regions.

    `kind`: heads read clean views, references read features. `looks_at_scores`: references also read image scores.
    `backbone` is that of the heads; None for references. Regions whose novelty is above 1 - `unknown_rate` are unknown.
    """

    name: ClassVar[str] = "classify"
    version: ClassVar[int] = 6

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        classifier: Files
        regions: Table | None = None
        clean_views: Table | None = None
        features: Table | None = None
        maps: Table | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        region_predictions: Table

    kind: Literal["heads", "references"]
    backbone: BackboneConfig | None
    unknown_rate: float
    looks_at_scores: bool = False

    @property
    def resources(self) -> Resources:
        """Heads need a model, references only arrays."""
        return "model" if self.kind == "heads" else "light"

    @property
    def reads(self) -> Sequence[str]:
        """Roles that it reads."""
        if self.kind == "heads":
            return ["classifier", "regions", "clean_views"]
        return ["classifier", "features", *(["maps"] if self.looks_at_scores else [])]

    def run(self, context: Context, inputs: In) -> Work:
        """Compute the table `region_predictions`, with the same parts as the regions."""
        sources = {role: getattr(inputs, role) for role in self.reads if role != "classifier"}
        counted = "regions" if self.kind == "heads" else "features"
        worker = ClassifyRegions(self.backbone, self.unknown_rate, inputs.classifier.folder)
        done = yield from context.map(worker, align_shards(sources, count=counted))
        return Result.of_shards(done)


@dataclass(frozen=True)
class ClassifyRegions:
    """Classifies the regions of a shard."""

    backbone: BackboneConfig | None
    unknown_rate: float
    classifier: Folder

    def __call__(self, shard: Shard) -> ShardResult:
        """Compute the rows of `region_predictions`."""
        from ancd_ray.discovery.classifiers import load_classifier

        tables = {role: shard.table(role) for role in shard.inputs}
        classifier = load_classifier(self.classifier.read)
        rows = classify_regions(classifier, self.backbone, self.unknown_rate, tables)
        return ShardResult({"region_predictions": rows})


def classify_regions(
    classifier: Any, backbone: BackboneConfig | None, unknown_rate: float, tables: Mapping[str, pa.Table]
) -> list[dict[str, Any]]:
    """Compute the rows of `region_predictions`.

    Parameters
    ----------
    classifier
        A `HeadsClassifier` or `ReferenceClassifier`.
    backbone
        Backbone of the heads.
    unknown_rate
        Share of the regions of known classes that may be called unknown.
    tables
        `regions` and `clean_views` for heads; `features`, and `maps` if a normal curve is used, for references.
    """
    from ancd_ray.discovery.classifiers import HeadsClassifier
    from ancd_ray.discovery.normal_curve import stack_figures

    is_trained = isinstance(classifier, HeadsClassifier)
    regions = tables["regions" if is_trained else "features"]
    if not regions.num_rows:
        return []
    if is_trained:
        from ancd_ray.backbones.loaded import load_cached

        assert backbone is not None
        predicted = classifier.predict(tables["clean_views"], load_cached(backbone))
    else:
        scores = None
        if classifier.normal is not None:
            ids = tables["maps"].column("image_id").combine_chunks()
            image_N = pc.index_in(regions.column("image_id"), value_set=ids).to_numpy()
            scores = stack_figures(tables["maps"])[image_N]
        predicted = classifier.predict(column_to_matrix(regions.column(classifier.feature)), scores)
    return _make_rows(regions.select(list(_COPIED)).to_pylist(), predicted, unknown_rate)


def _make_rows(regions: Sequence[dict[str, Any]], predicted: Predicted, unknown_rate: float) -> list[dict[str, Any]]:
    probs_NK, head_cls_NH, embedding_ND, novelty_N, frozen_ND = predicted
    is_unknown_N = novelty_N > 1 - unknown_rate
    cls_N = probs_NK.argmax(axis=1)
    return [
        {
            **region,
            "probs": probs_NK[i].tolist(),
            "embedding": embedding_ND[i].tolist(),
            "head_cls": head_cls_NH[i].tolist(),
            "cls": int(cls_N[i]),
            "confidence": float(probs_NK[i, cls_N[i]]),
            "novelty": float(novelty_N[i]),
            "is_unknown": bool(is_unknown_N[i]),
            "frozen": frozen_ND[i].tolist() if is_unknown_N[i] else None,
        }
        for i, region in enumerate(regions)
    ]
