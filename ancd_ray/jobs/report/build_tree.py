"""Collects the tree of classes of a product for the report."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ancd_ray.config.secrets import hide_secrets
from ancd_ray.data.store import Folder
from ancd_ray.discovery.classifiers import HeadsClassifier, load_classifier
from ancd_ray.discovery.features.region_features import StoredFeatures
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.jobs.report.model import GalleryItem
from ancd_ray.jobs.report.tree_model import Leaf, TreeReport

_SAMPLE = 5000  # regions that are counted
_EXAMPLES = 4  # regions of a leaf that are shown

ReadItems = Callable[[Sequence[str]], Mapping[str, GalleryItem]]


def build_tree(
    artifacts: ArtifactSet, names: Sequence[str], folder: Folder, product: str | None, read_items: ReadItems
) -> TreeReport | None:
    """Collect the tree of a product; None if its classes have none.

    Parameters
    ----------
    artifacts
        Artifacts of the product.
    names
        Names of its classes, by index.
    folder
        Run folder.
    product
        Name of the product, for a run with several; else None.
    read_items
        Returns the pictures of regions, by region id.
    """
    if "trained" in artifacts:
        return None
    classifier = load_classifier(artifacts.files("classifier").read)
    if isinstance(classifier, HeadsClassifier) or classifier.tree is None or classifier.tree.n_leaves < 2:
        return None
    tree, n_told = classifier.tree, int(classifier.normal is not None)
    features = artifacts.table("features")
    rows = np.linspace(0, features.num_rows - 1, min(features.num_rows, _SAMPLE)).astype(int)
    table = features.read(["region_id", "label"]).take(rows)
    ids, labels = table.column("region_id").to_pylist(), table.column("label").to_pylist()
    leaf_N = classifier.find_leaves(np.concatenate(list(StoredFeatures(features).read(classifier.feature, rows))))
    found = artifacts.table("region_predictions").read(["region_id", "cls", "confidence"]).to_pydict()
    of_region = dict(zip(found["region_id"], zip(found["cls"], found["confidence"], strict=True), strict=True))
    members: list[list[int]] = [[] for _ in range(tree.n_leaves)]
    for i, leaf in enumerate(leaf_N.tolist()):
        if of_region[ids[i]][0] == tree.cls_L[leaf] + n_told:  # neither told normal nor given another class by a person
            members[leaf].append(i)
    shown = [sorted(own, key=lambda i: -of_region[ids[i]][1])[:_EXAMPLES] for own in members]
    items = read_items([ids[i] for own in shown for i in own])
    command = ["ancd-ray", "classes", "cut", hide_secrets(folder.uri), *(["--product", product] if product else [])]

    def make_leaf(leaf: int) -> Leaf:
        counts: Counter[Any] = Counter(labels[i] for i in members[leaf] if labels[i] is not None)
        pictures = [items[ids[i]] for i in shown[leaf]]
        return Leaf(int(tree.cls_L[leaf]) + n_told, len(members[leaf]), dict(sorted(counts.items())), pictures)

    return TreeReport(
        [make_leaf(leaf) for leaf in range(tree.n_leaves)],
        [(int(left), int(right)) for left, right in tree.children],
        tree.heights.tolist(),
        names,
        n_told,
        (len(rows), features.num_rows),
        shlex.join(command),
    )
