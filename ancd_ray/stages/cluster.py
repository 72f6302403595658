"""Cluster: makes a classifier by clustering frozen features of regions, without training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ancd_ray.data.roles import Classes, make_normal_id
from ancd_ray.engine.artifacts import Figures, Files, Table
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result
from ancd_ray.engine.stage import Stage, unhashed

NESTED = ("ward", "anomaly_clustering", "spectral")  # methods that have a tree of classes


@dataclass(frozen=True)
class Cluster(Stage):
    """Makes a classifier of clustered regions.

    `corrections` are ids of regions and of the classes that people have put them into. `known` are those of other
    regions, by the discoveries before: they say which cluster such a class is, and nothing without corrections.
    `max_classes` is the number of classes up to which the tree is kept, if the method has one.
    """

    name: ClassVar[str] = "cluster"
    version: ClassVar[int] = 8

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
    max_classes: int = 0
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
            "base_features": self.method == "semi_kmeans",
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
        from ancd_ray.discovery.cluster_regions import cluster_regions
        from ancd_ray.discovery.corrections import correct_clustered
        from ancd_ray.discovery.features.region_features import StoredFeatures, read_base_features
        from ancd_ray.discovery.image_scores import read_scores

        classes = resolve_class_count(self.classes, inputs.class_count)
        novel = StoredFeatures(inputs.features)
        check_class_count(context.product, len(novel), classes)
        base = read_base_features(inputs.base_features) if inputs.base_features else None
        scores = read_scores(inputs.features, inputs.maps, inputs.normal_scores)
        digest = str(inputs.features.values["backbone_digest"])
        classifier = cluster_regions(novel, base, self.method, classes, self.seed, digest, scores, self.max_classes)
        given, known, normal_id = dict(self.corrections), dict(self.known), make_normal_id(context.product)
        classifier, corrected = correct_clustered(classifier, inputs.features, scores, given, known, normal_id)
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
