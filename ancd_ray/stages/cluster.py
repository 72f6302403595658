"""Cluster: makes a classifier by clustering frozen features of regions, without training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow.compute as pc

from ancd_ray.data.roles import Classes, make_normal_id
from ancd_ray.engine.artifacts import Figures, Files, Table
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result
from ancd_ray.engine.stage import Stage, unhashed

if TYPE_CHECKING:
    from ancd_ray.discovery.classifiers import ReferenceClassifier
    from ancd_ray.discovery.cluster_regions import ImageScores
    from ancd_ray.discovery.features.region_features import StoredFeatures


@dataclass(frozen=True)
class Cluster(Stage):
    """Makes a classifier of clustered regions.

    `corrections` are ids of regions and of the classes that people have put them into. `known` are those of other
    regions, by the discoveries before: they say which cluster such a class is, and nothing without corrections.
    """

    name: ClassVar[str] = "cluster"
    version: ClassVar[int] = 7

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        features: Table
        base_features: Table | None = None
        class_count: Figures | None = None
        maps: Table | None = None
        normal_scores: Table | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        classifier: Files

    method: str
    classes: Classes
    seed: int
    corrections: tuple[tuple[str, str], ...] = ()
    known: tuple[tuple[str, str], ...] = unhashed(())

    @property
    def looks_at_scores(self) -> bool:
        """Whether images are first classified as normal by their anomaly scores."""
        return self.method in ("linked", "spectral") and self.classes.has_normal

    @property
    def reads(self) -> Sequence[str]:
        """Roles that it reads."""
        optional = {
            "base_features": self.method == "gcd",
            "maps": self.looks_at_scores,
            "normal_scores": self.looks_at_scores,
        }
        return ["features", "class_count", *(role for role, is_read in optional.items() if is_read)]

    def run(self, context: Context, inputs: In) -> Result:
        """Cluster the regions.

        Raises
        ------
        StageError
            There are fewer regions than classes.
        """
        from ancd_ray.discovery.class_number import check_class_count, resolve_class_count
        from ancd_ray.discovery.cluster_regions import ImageScores, cluster_regions
        from ancd_ray.discovery.features.region_features import StoredFeatures, read_base_features

        classes = resolve_class_count(self.classes, inputs.class_count)
        novel = StoredFeatures(inputs.features)
        check_class_count(context.product, len(novel), classes)
        base = read_base_features(inputs.base_features) if inputs.base_features else None
        scores = None
        if inputs.maps:
            table = inputs.maps.read(["image_id", "score"])
            score_I = table.column("score").to_numpy()
            image_ids = inputs.features.read(["image_id"]).column("image_id")
            image_N = pc.index_in(image_ids, value_set=table.column("image_id").combine_chunks()).to_numpy()
            known = inputs.normal_scores.read(["score"]).column("score").to_numpy() if inputs.normal_scores else None
            scores = ImageScores(score_I, score_I[image_N], known)
        digest = str(inputs.features.values["backbone_digest"])
        classifier = cluster_regions(novel, base, self.method, classes, self.seed, digest, scores)
        corrected: dict[str, Any] = {}
        if self.corrections:
            ids = inputs.features.read(["region_id"]).column("region_id").to_pylist()
            classifier, corrected = self._correct(classifier, novel, ids, scores, make_normal_id(context.product))
        files = classifier.save()
        for name, data in files.items():
            context.folder.write(name, data)
        values = {
            "n_novel": classifier.classes.n_novel,
            "has_normal": classes.has_normal,
            "references": len(classifier.probs_MK),
            **corrected,
        }
        return Result({}, values, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})

    def _correct(
        self,
        classifier: ReferenceClassifier,
        novel: StoredFeatures,
        region_ids: Sequence[str],
        scores: ImageScores | None,
        normal_id: str,
    ) -> tuple[ReferenceClassifier, dict[str, Any]]:
        """Give corrected regions their classes, and return what is recorded of it."""
        from ancd_ray.discovery.corrections import choose_known, correct_classifier

        given = dict(self.corrections)
        known = {region: own for region, own in self.known if region not in given}
        here = [row for row, region in enumerate(region_ids) if region in given]
        chosen = set(choose_known(known, region_ids))
        others = [row for row, region in enumerate(region_ids) if region in chosen]
        rows = np.array(sorted([*here, *others]), np.int64)
        frozen_ND = np.concatenate(list(novel.read(classifier.feature, rows)))
        found_N = classifier.predict_probs(frozen_ND, scores.of_regions_N[rows] if scores else None).argmax(axis=1)
        found = {region_ids[row]: int(index) for row, index in zip(rows, found_N, strict=True)}
        own_CD = frozen_ND[np.isin(rows, here)]
        return correct_classifier(classifier, given, [region_ids[row] for row in here], own_CD, found, known, normal_id)
