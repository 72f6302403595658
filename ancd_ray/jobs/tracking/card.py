"""Model cards: what a registered model is for, its data, figures, classes and limits, as Markdown and as tags.

A card is made of what a run leaves: its tables, its job, and the document of its model. The Markdown is the description
of the registered version, without pictures, and the file `card.md` beside the model, with pictures of each class. The
tags of the version have the figures and classes for programs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.job import Job
from ancd_ray.config.secrets import hide_secrets
from ancd_ray.detectors.base import DetectorConfig
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.versions import read_versions
from ancd_ray.jobs.classify.pinned import PinnedModel
from ancd_ray.jobs.tracking.markdown import escape, make_table

PICTURES = "card"  # folder of the pictures, beside card.md
COLUMNS = ("region_id", "cls", "confidence", "label")  # of region_predictions
FIGURES = ("nmi", "ari", "f1", "silhouette")  # those of images against labels; and without labels
_EXAMPLES = 3  # pictures of a class
_DESCRIBED = 4900  # characters; databases of MLflow take 5,000
_LABEL = 30  # characters of a label in tags, of which there are 5,000 as well


@dataclass(frozen=True)
class CardClass:
    """A class of a model: how many regions the run has in it, and which label most of those have that have one."""

    name: str
    regions: int
    label: str | None = None
    share: float | None = None  # of the labelled regions, with that label
    examples: Mapping[str, bytes] = field(default_factory=dict)  # PNG files by their paths beside card.md


@dataclass(frozen=True)
class Card:
    """What there is to say about a model."""

    job: Job  # with the overrides of the product
    run: str  # name of the run folder
    product: str
    model: PinnedModel
    images: int  # that the run has classified
    figures: Mapping[str, float | None]
    classes: Sequence[CardClass]
    versions: Mapping[str, str]

    @property
    def tags(self) -> dict[str, str]:
        """Figures and classes as tags of the registered version."""
        classes = [[each.name, each.regions, each.label and each.label[:_LABEL]] for each in self.classes]
        return {
            "product": self.product,
            "job": self.job.name,
            "run": self.run,
            "images": str(self.images),
            "regions": str(sum(each.regions for each in self.classes)),
            "detector": str(self.model.document["detector"]["name"]),
            "backbone": str(self.model.document["backbone"]["name"]),
            "method": self.job.discovery.method,
            "classes": json.dumps(classes, ensure_ascii=False, separators=(",", ":")),
            **{name: f"{value:.4f}" for name, value in self.figures.items() if value is not None},
        }

    @property
    def pictures(self) -> dict[str, bytes]:
        """The files of all pictures, by their paths beside card.md."""
        return {path: data for each in self.classes for path, data in each.examples.items()}

    def write(self) -> str:
        """Write the card with links to its pictures."""
        return "\n".join([*self._head(), *self._tabulate_classes(), *self._show_examples(), *self._foot()])

    def describe(self) -> str:
        """Write the card without pictures, cut to what MLflow stores as a description."""
        shown = ["", f"Pictures of each class are in {PICTURES}/ beside card.md of the run."] if self.pictures else []
        text = "\n".join([*self._head(), *self._tabulate_classes(), *shown, *self._foot()])
        if len(text) > _DESCRIBED:  # very many classes; these are in the tags as well
            shown = ["", "## Classes", "", f"{len(self.classes)} classes; card.md of the run lists them."]
            text = "\n".join([*self._head(), *shown, *self._foot()])
        return text[:_DESCRIBED]

    def _head(self) -> Iterator[str]:
        job, names = self.job, self.model.classes
        yield f"# {escape(self.product)}"
        yield ""
        yield (
            f"Finds anomalous regions in images of the product {escape(self.product)} and sorts regions and images "
            f"into {len(names)} classes. The classes were discovered, not taught: a class is what looks alike, and "
            "its name is a number."
        )
        yield from ("", "## Data", "")
        yield f"- job {escape(job.name)}, run {escape(self.run)}"
        yield f"- {self.images:,} images of {escape(self.product)} below {escape(hide_secrets(job.data.root))}"
        yield (
            f"- of a larger archive, a seeded sample of at most {job.discovery.max_regions:,} images"
            f"{_describe_normals(job)}"
        )
        yield f"- base set: {escape(job.data.base.name) if job.data.base else 'none'}"
        yield f"- method of discovery: {escape(job.discovery.method)}"
        yield from ("", "## Figures", "")
        yield from self._list_figures()

    def _list_figures(self) -> Iterator[str]:
        values = {name: self.figures.get(name) for name in FIGURES}
        if all(values[name] is None for name in ("nmi", "ari", "f1")):
            yield "The images have no labels, so nobody knows how right the classes are."
            yield f"- silhouette in frozen features: {_format(values['silhouette'])}"
            return
        yield "Images against their labels, on the images of the run:"
        yield from (f"- {name.upper()} {_format(values[name])}" for name in ("nmi", "ari", "f1"))

    def _tabulate_classes(self) -> Iterator[str]:
        yield from ("", "## Classes", "")
        rows = [
            (each.name, f"{each.regions:,}", f"{each.label} ({each.share:.0%})" if each.label else "–")
            for each in self.classes
        ]
        yield from make_table(("class", "regions", "most frequent label"), rows)

    def _show_examples(self) -> Iterator[str]:
        for each in self.classes:
            if each.examples:
                yield from ("", f"### {escape(each.name)}", "")
                yield " ".join(f"![{escape(each.name)}]({path})" for path in each.examples)

    def _foot(self) -> Iterator[str]:
        document, backbone = self.model.document, self.model.document["backbone"]
        yield from ("", "## Limits", "")
        yield "- a defect of another kind gets the nearest of these classes, and mostly the verdict unknown"
        yield f"- detector {escape(str(document['detector']['name']))}: {describe_needs(self.model.detector)}"
        yield (
            f"- backbone {escape(str(backbone['name']))}, whose weights have the digest "
            f"{escape(str(backbone['digest']))}; they are not part of the model, and others are refused"
        )
        yield from ("", "## Versions", "")
        yield f"- model {self.model.digest}, format {document['format']}"
        yield f"- {escape(', '.join(f'{name} {version}' for name, version in self.versions.items()))}"
        yield from ("", "## Licence", "")
        yield "The run records none; those of the images and of the weights of the backbone hold."


def describe_needs(detector: DetectorConfig) -> str:
    """Describe what a detector needs, in one line."""
    return "; ".join(dict.fromkeys(_NEEDS[part.needs] for part in detector.parts))


_NEEDS = {
    "nothing": "needs nothing but the image",
    "normals": "has learned from normal images, and needs nothing but the image",
    "references": "has learned from images of the product, and needs nothing but the image",
    "masks": "the mask of each image has to be given",
    "maps": "the anomaly map of each image has to be given",
}


def make_card(
    job: Job,
    run: str,
    product: str,
    model: PinnedModel,
    images: int,
    figures: Mapping[str, float | None],
    regions: pa.Table,
    pictures: Table | None = None,
) -> Card:
    """Make the card of a model.

    Parameters
    ----------
    job
        Job with the overrides of the product.
    run
        Name of the run folder.
    product, model
        The product and its model.
    images
        Number of images that the run has classified.
    figures
        Values of some of `FIGURES`.
    regions
        The columns `COLUMNS` of its region predictions.
    pictures
        The table `regions`, if it is still there.
    """
    examples = _choose_examples(regions)
    crops = _read_crops(pictures, {each for ids in examples.values() for each in ids}) if pictures else {}
    classes = [
        _make_class(index, name, regions, [crops[each] for each in examples.get(index, []) if each in crops])
        for index, name in enumerate(model.classes)
    ]
    return Card(job, run, product, model, images, figures, classes, read_versions())


def _make_class(index: int, name: str, regions: pa.Table, crops: Sequence[bytes]) -> CardClass:
    own = regions.filter(pc.equal(regions.column("cls"), index))
    labels = Counter(label for label in own.column("label").to_pylist() if label)
    label, count = min(labels.items(), key=lambda each: (-each[1], each[0]), default=(None, 0))
    examples = {f"{PICTURES}/class-{index}-{number}.png": crop for number, crop in enumerate(crops, start=1)}
    return CardClass(name, own.num_rows, label, count / labels.total() if label else None, examples)


def _choose_examples(regions: pa.Table) -> dict[int, list[str]]:
    """Choose the most certain regions of each class; returns their ids by class."""
    cls, confidence = regions.column("cls").to_numpy(), regions.column("confidence").to_numpy()
    order = np.argsort(-confidence, kind="stable")
    chosen = {int(index): order[cls[order] == index][:_EXAMPLES] for index in np.unique(cls)}
    ids = regions.column("region_id")
    return {index: ids.take(pa.array(rows)).to_pylist() for index, rows in chosen.items()}


def _read_crops(regions: Table, wanted: set[str]) -> dict[str, bytes]:
    """Read the pictures of some regions by their ids, part by part to bound memory."""
    found: dict[str, bytes] = {}
    ids = pa.array(sorted(wanted), pa.string())
    for part in regions.parts:
        is_wanted = pc.is_in(regions.read_part(part, ["region_id"]).column("region_id"), value_set=ids)
        if pc.any(is_wanted).as_py():
            rows = regions.read_part(part, ["region_id", "image"]).filter(is_wanted).to_pydict()
            found |= dict(zip(rows["region_id"], rows["image"], strict=True))
    return found


def _describe_normals(job: Job) -> str:
    normals = job.detector.n_normals
    return f", and of {normals:,} normal ones" if normals else ""


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
