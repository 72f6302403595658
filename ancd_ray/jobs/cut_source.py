"""A run that is cut: its product with a tree of classes, and how `--k`, `--merge` and `--split` change the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.data.store import Folder
from ancd_ray.discovery.class_tree import ClassTree
from ancd_ray.discovery.classifiers import HeadsClassifier, ReferenceClassifier, load_classifier
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.jobs.results import JobResults, locate_root, open_run
from ancd_ray.jobs.run_folder import find_run_titles


class CutError(AncdError):
    """A run cannot be cut so; the message is one line."""


@dataclass(frozen=True)
class Source:
    """A product of a run that is cut: its artifacts, its classifier, and the ids and names of its classes."""

    folder: Folder
    job: Job
    results: JobResults
    product: str
    classifier: ReferenceClassifier
    class_ids: Sequence[str]
    names: Sequence[str]

    @property
    def artifacts(self) -> ArtifactSet:
        """Artifacts of the product."""
        return self.results.products[self.product]

    @property
    def tree(self) -> ClassTree:
        """The tree of its classes."""
        assert self.classifier.tree is not None, "see open_source"
        return self.classifier.tree

    @property
    def n_told(self) -> int:
        """Number of classes before those of the tree: 1 if scores of images tell what is normal."""
        return int(self.classifier.normal is not None)


def open_source(folder: Folder, product: str | None) -> Source:
    """Open a product of a run that has a tree.

    Raises
    ------
    CutError, StoreError
        The run has no such product, or no tree.
    """
    job, results = open_run(folder)
    names = list(results.products)
    if product is None and len(names) > 1:
        raise CutError(f"{folder}: has the products {', '.join(names)}; say which: --product, or product= in Python")
    product = product or names[0]
    if product not in names:
        raise CutError(f"{folder}: has no product {product!r}; there are {', '.join(names)}")
    classifier = load_classifier(results.products[product].files("classifier").read)
    if isinstance(classifier, HeadsClassifier) or classifier.tree is None:
        how = "a training" if isinstance(classifier, HeadsClassifier) else f"discovery.method={classifier.method}"
        raise CutError(
            f"{folder}: classes of {how} have no tree; submit the job with classes.novel=K, or with a method that has "
            "one, such as discovery.method=ward"
        )
    ids = [each["id"] for each in (folder / "models" / product).read_json("model.json")["classes"]]
    titles = [title.name for title in find_run_titles(locate_root(folder), folder)[product]]
    return Source(folder, job, results, product, classifier, ids, titles)


def make_change(k: int | None, merge: Sequence[str] | None, split: str | None) -> dict[str, Any]:
    """Make the change that is asked for: the one of the three that is given."""
    given = {"k": k, "merge": list(merge) if merge else None, "split": split}
    change = {kind: value for kind, value in given.items() if value is not None}
    if len(change) != 1:
        raise CutError("give one of k, merge and split; a cut can be cut again")
    return change


def apply_change(source: Source, change: Mapping[str, Any]) -> tuple[ClassTree, dict[str, Any]]:
    """Apply a change to the tree; returns the tree, and the change in words of the record, with ids of classes."""
    tree, n_told = source.tree, source.n_told
    (kind,) = change
    if kind == "k":
        k = int(change["k"])
        if not 1 <= k - n_told <= tree.n_leaves:
            low, high = 1 + n_told, tree.n_leaves + n_told
            raise CutError(
                f"{source.folder}: the tree has from {low} to {high} classes, and not {k}; for more, submit the job "
                f"with classes.max_classes={k}"
            )
        return tree.cut(k - n_told), {"k": k}
    if kind == "merge":
        found = list(dict.fromkeys(_find(source, each) for each in change["merge"]))
        if len(found) < 2:
            raise CutError("merge: needs two classes at least, such as 1 and 3")
        return tree.merge(found), {"merge": [source.class_ids[c + n_told] for c in found]}
    cls = _find(source, change["split"])
    class_id = source.class_ids[cls + n_told]
    try:
        return tree.split(cls), {"split": class_id}
    except ValueError as error:
        raise CutError(
            f"{class_id}: {error}; submit the job with classes.max_classes above {tree.n_leaves + n_told}"
        ) from error


def _find(source: Source, text: str) -> int:
    """Find a class of the tree by id, name or index."""
    text = text.strip()
    by = [list(source.class_ids), list(source.names), [str(i) for i in range(len(source.class_ids))]]
    found = next((each.index(text) for each in by if text in each), None)
    if found is None:
        raise CutError(f"{source.folder}: has no class {text!r}; there are {', '.join(source.class_ids)}")
    if found < source.n_told:
        raise CutError(f"{text}: scores of images tell what is normal, not the tree; it is neither merged nor split")
    if found - source.n_told >= source.tree.n_classes:
        raise CutError(f"{text}: has only regions that people have put into it; the tree does not know it")
    return found - source.n_told
