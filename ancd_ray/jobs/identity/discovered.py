"""Ids for the classes of a discovery: of known classes that it has found again, and new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from ancd_ray.data.roles import make_class_id, make_normal_id
from ancd_ray.data.store import Folder
from ancd_ray.discovery.classifiers import Classifier, HeadsClassifier, load_classifier
from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.discovery.matching import match_by_prototypes, match_by_regions, measure_spread
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.jobs.identity.tables import (
    EXEMPLARS,
    Row,
    change_classes,
    find_next_number,
    now,
    read_classes,
    read_members,
    write_members,
)

if TYPE_CHECKING:
    from ancd_ray.jobs.classify.pinned import PinnedModel

_JOB = "discovery"  # who changes a class that no person changes


def adopt_classes(root: Folder, models: Mapping[str, PinnedModel]) -> None:
    """Write the classes of models that were made in another output folder and are not known in this one.

    Parameters
    ----------
    root
        Output folder.
    models
        Models by product.

    Raises
    ------
    StoreError
        The table cannot be read or written.
    """

    def change(there: Mapping[str, Row]) -> Iterator[Row]:
        for product, model in models.items():
            if all(each["id"] in there for each in model.document["classes"]):
                continue
            classifier = load_classifier(model.read)
            prototypes_KD = classifier.novelty.compute_prototypes(classifier.classes.n_novel)
            for prototype_D, each in zip(prototypes_KD, model.document["classes"], strict=True):
                if each["id"] not in there:
                    row = make_row(each["id"], product, prototype_D, name_space(classifier))
                    yield {**row, "exemplars": [], "images": 0, "regions": 0}

    change_classes(root, change)


@dataclass(frozen=True)
class Discovered:
    """The classes of a finished discovery.

    Parameters
    ----------
    product
        Name of the product.
    ids
        Ids of the classes, by index.
    known
        Those of them that were known before.
    has_others
        Whether the product had classes before, found again or not.
    rows
        Rows of the table `classes`, by id.
    members
        Index of the class of each region, by region id.
    lost_corrections
        Number of regions that people have put into a class and that the discovery does not have.
    """

    product: str
    ids: Sequence[str]
    known: frozenset[str]
    has_others: bool
    rows: Mapping[str, Row]
    members: Mapping[str, int]
    lost_corrections: int = 0

    def write(self, root: Folder, accept: bool) -> None:
        """Write the classes and their members; a new class beside known ones is a candidate unless it is accepted.

        Raises
        ------
        StoreError
            A table cannot be read or written.
        """

        def change(there: Mapping[str, Row]) -> Iterator[Row]:
            is_first = not any(row["product"] == self.product for row in there.values())
            for class_id, row in self.rows.items():
                if before := there.get(class_id):
                    kept = {key: before[key] for key in ("name", "status", "merged_into", "since")}
                    yield {**row, **kept}
                else:
                    yield {**row, "status": "active" if is_first or accept else "candidate"}

        change_classes(root, change)
        corrected = {region for region, row in read_members(root, self.product).items() if row["source"] == "person"}
        common = {"product": self.product, "source": _JOB, "changed_at": now(), "changed_by": _JOB}
        found = {region: self.ids[index] for region, index in self.members.items() if region not in corrected}
        write_members(root, [{"region_id": region, "class_id": own, **common} for region, own in found.items()])

    def describe(self) -> Iterator[str]:
        """Describe in lines which classes are new beside known ones, and which corrections have no effect."""
        for class_id in self.ids if self.has_others else ():
            if class_id not in self.known:
                row = self.rows[class_id]
                yield f"{self.product}: new class {class_id} ({row['regions']:,} regions in {row['images']:,} images)"
        if lost := self.lost_corrections:
            yield f"{self.product}: {lost:,} corrected region{'s' * (lost != 1)} not found in this discovery"


def identify(root: Folder, product: str, artifacts: ArtifactSet, kin: Sequence[Mapping[str, str]] = ()) -> Discovered:
    """Give ids to the classes of a finished discovery.

    Parameters
    ----------
    root
        Output folder with the tables of known classes.
    product
        Name of the product.
    artifacts
        Artifacts of the discovery.
    kin
        Ids of the classes of regions, by region id, in the runs that it was cut of, the first one first.

    Raises
    ------
    StoreError
        The tables of known classes cannot be read.
    """
    values = artifacts.files("classifier").values
    classifier = load_classifier(artifacts.files("classifier").read)
    predicted = artifacts.table("region_predictions").read(["region_id", "image_id", "cls", "novelty"])
    members = dict(zip(*(predicted.column(name).to_pylist() for name in ("region_id", "cls")), strict=True))
    classes = read_classes(root, product)
    ids, known = _find_ids(root, product, classifier, members, classes, values.get("corrected", {}), kin)
    images = Counter(
        row["cls"] for row in predicted.group_by(["image_id", "cls"]).aggregate([]).select(["cls"]).to_pylist()
    )
    prototypes_KD, space = classifier.novelty.compute_prototypes(len(ids)), name_space(classifier)
    rows: dict[str, Row] = {}
    for index, class_id in enumerate(ids):
        own = predicted.filter(pc.equal(predicted.column("cls"), index)).sort_by("novelty")
        rows[class_id] = {
            **make_row(class_id, product, prototypes_KD[index], space),
            "exemplars": own.column("region_id").to_pylist()[:EXEMPLARS],
            "images": images[index],
            "regions": own.num_rows,
        }
    numbers = values.get("corrections", {"given": 0, "found": 0})
    return Discovered(product, ids, frozenset(known), bool(classes), rows, members, numbers["given"] - numbers["found"])


def make_row(class_id: str, product: str, prototype_D: Floats, space: str) -> Row:
    """Make the row of a class that nobody has named, without what is known of its regions."""
    return {
        "id": class_id,
        "product": product,
        "name": None,
        "status": "active",
        "merged_into": None,
        "prototype": None if np.isnan(prototype_D).any() else prototype_D.tolist(),
        "space": space,
        "since": now(),
        "changed_at": now(),
        "changed_by": _JOB,
    }


def _find_ids(
    root: Folder,
    product: str,
    classifier: Classifier,
    members: Mapping[str, int],
    classes: Mapping[str, Row],
    corrected: Mapping[str, int],
    kin: Sequence[Mapping[str, str]],
) -> tuple[list[str], set[str]]:
    """Find the id of each class, and which of them are known; those that people have put regions into are `corrected`.

    What a class was called in the runs that these were cut of comes first.

    A class that was merged keeps its id, too, if it is found again, and is shown as the one that it was merged into.
    """
    given = {index: class_id for class_id, index in corrected.items()}
    given |= {0: make_normal_id(product)} if classifier.classes.has_normal else {}
    n_classes = classifier.classes.n_novel
    for related in kin:
        left = {region: index for region, index in members.items() if index not in given}
        ids_left = sorted(set(related.values()) - {make_normal_id(product), *given.values()})
        given |= match_by_regions(left, related, ids_left, n_classes)
    candidates = [each for each in classes if each not in {make_normal_id(product), *given.values()}]
    before = {region: row["class_id"] for region, row in read_members(root, product).items()}
    found = {region: index for region, index in members.items() if index not in given}
    matched = match_by_regions(found, before, candidates, n_classes)
    with_members = {before[region] for region in found if region in before}
    rest = [k for k in range(n_classes) if k not in matched and k not in given]
    space = name_space(classifier)
    others = [
        class_id
        for class_id in candidates
        if class_id not in {*matched.values(), *with_members}
        and classes[class_id]["prototype"]
        and classes[class_id]["space"] == space
    ]
    if rest and others:
        calibration = classifier.novelty.calibration
        all_KD = calibration.apply(classifier.novelty.compute_prototypes(n_classes))
        known_JD = calibration.apply(np.array([classes[class_id]["prototype"] for class_id in others], np.float32))
        near = match_by_prototypes(all_KD[rest], known_JD, others, measure_spread(all_KD))
        matched |= {rest[row]: class_id for row, class_id in near.items()}
    matched |= given
    number = find_next_number(product, classes)
    ids = []
    for index in range(n_classes):
        if index in matched:
            ids.append(matched[index])
        else:
            number = max(number, index) if not classes else number
            ids.append(make_class_id(product, number))
            number += 1
    return ids, {class_id for class_id in ids if class_id in classes}


def name_space(classifier: Classifier) -> str:
    """Name the space of its frozen features: prototypes of one space can be compared."""
    kind = "tokens" if isinstance(classifier, HeadsClassifier) else classifier.feature
    return f"{classifier.backbone_digest[:16]}/{kind}"
