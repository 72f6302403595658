"""Cut: makes a classifier with other classes of the tree that a clustering has left; nothing is clustered again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ancd_ray.data.roles import make_normal_id
from ancd_ray.engine.artifacts import Files, Table
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result
from ancd_ray.engine.stage import Stage, unhashed


@dataclass(frozen=True)
class Cut(Stage):
    """Gives the leaves of a tree other classes.

    `leaf_classes` has the class of each leaf. `corrections` and `known` are those of `Cluster`.
    """

    name: ClassVar[str] = "cut"
    version: ClassVar[int] = 2

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        classifier: Files
        features: Table
        maps: Table | None = None

    class Out:
        """Artifacts that the stage makes, by role."""

        classifier: Files

    leaf_classes: tuple[int, ...]
    looks_at_scores: bool = False
    corrections: tuple[tuple[str, str], ...] = ()
    known: tuple[tuple[str, str], ...] = unhashed(())

    @property
    def reads(self) -> Sequence[str]:
        """Roles that it reads."""
        return ["classifier", "features", *(["maps"] if self.looks_at_scores else [])]

    def run(self, context: Context, inputs: In) -> Result:
        """Make the classifier, and give corrected regions their classes."""
        from ancd_ray.discovery.classifiers import ReferenceClassifier, load_classifier
        from ancd_ray.discovery.corrections import correct_clustered
        from ancd_ray.discovery.image_scores import read_scores

        classifier = load_classifier(inputs.classifier.read)
        assert isinstance(classifier, ReferenceClassifier)
        assert classifier.tree is not None
        cut = classifier.regroup(replace(classifier.tree, cls_L=np.array(self.leaf_classes, np.int64)))
        scores = read_scores(inputs.features, inputs.maps)
        given, known, normal_id = dict(self.corrections), dict(self.known), make_normal_id(context.product)
        cut, corrected = correct_clustered(cut, inputs.features, scores, given, known, normal_id)
        files = cut.save()
        for name, data in files.items():
            context.folder.write(name, data)
        values = {"n_novel": cut.classes.n_novel, "has_normal": cut.classes.has_normal, **corrected}
        return Result({}, values, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
