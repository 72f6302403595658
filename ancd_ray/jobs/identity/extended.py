"""Models extended by classes that were accepted after their discovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ancd_ray.data.store import Folder
from ancd_ray.jobs.identity.tables import Row, read_members, resolve_id

if TYPE_CHECKING:
    from ancd_ray.jobs.classify.pinned import PinnedModel


def extend_model(root: Folder, product: str, model: PinnedModel, classes: Mapping[str, Row]) -> PinnedModel:
    """Return the model of a product with the active classes that it does not have, if there are any.

    Classes whose regions were described by another backbone are left out: they need a discovery.

    Parameters
    ----------
    root
        Output folder.
    product
        Name of the product.
    model
        Its model.
    classes
        All known classes by id.

    Raises
    ------
    StoreError
        A table cannot be read.
    """
    own = {resolve_id(classes, class_id) for class_id in model.class_ids}
    lacking = [
        class_id
        for class_id, row in sorted(classes.items())
        if row["product"] == product and row["status"] == "active" and class_id not in own
    ]
    if not lacking:
        return model
    import numpy as np  # only now: a plan takes no second

    from ancd_ray.discovery.classifiers import extend_classifier, load_classifier
    from ancd_ray.jobs.identity.discovered import name_space

    classifier = load_classifier(model.read)
    space = name_space(classifier)
    features: dict[str, list[list[float]]] = {}
    for _, member in sorted(read_members(root, product).items()):
        class_id = resolve_id(classes, member["class_id"])
        if class_id in lacking and member["frozen"] and member["space"] == space:
            features.setdefault(class_id, []).append(member["frozen"])
    if not features:
        return model
    added = sorted(features)
    extended = extend_classifier(classifier, [np.array(features[class_id], np.float32) for class_id in added])
    first = len(model.class_ids)
    more = [
        {"index": first + i, "id": class_id, "name": f"class {first + i}", "is_normal": False}
        for i, class_id in enumerate(added)
    ]
    document = {
        **model.document,
        "classes": [*model.document["classes"], *more],
        "provenance": {**model.document["provenance"], "extends": model.digest},
    }
    return model.change(document, extended.save())
