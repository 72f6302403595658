"""Model of a product: everything that is needed to classify new images, in one folder.

    model.json                settings, class table, score range, digest of the backbone, provenance
    classifier.json           heads or reference regions
    classifier.safetensors
    novelty.safetensors       regions that the novelty of others is measured against
    memory_bank.safetensors   state of the detector, if it has one (its name is the detector's)
    calibration.json          scores of normal images

No file is a pickle, and none refers to a file outside of the folder, except for a weights file of the backbone. Loading
imports neither Ray nor MLflow. The folder does not contain the weights of the backbone, but their digest, which is
checked when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError

from ancd_ray import __version__
from ancd_ray.backbones.base import Backbone
from ancd_ray.backbones.loaded import load_cached
from ancd_ray.config.job import Job
from ancd_ray.config.sections import BackboneConfig, MebinConfig, MergeConfig, UnknownConfig
from ancd_ray.data.images import encode_png
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.roi import Roi
from ancd_ray.data.roles import Classes, name_classes
from ancd_ray.data.sources import attach_range
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS, conform
from ancd_ray.detectors.base import DetectorConfig, Scorer, State
from ancd_ray.detectors.score_range import Range
from ancd_ray.discovery.classifiers import Classifier, HeadsClassifier, load_classifier
from ancd_ray.discovery.features import FEATURES, VIEW_FEATURES
from ancd_ray.engine.artifacts import ArtifactSet
from ancd_ray.models.format import DOCUMENT, FORMAT, ModelError, check_weights, read_backbone, read_document
from ancd_ray.stages.catalog import make_image_id, open_files
from ancd_ray.stages.classify import classify_regions
from ancd_ray.stages.detect import make_scorer, read_state, score_images
from ancd_ray.stages.encode import encode_regions
from ancd_ray.stages.merge import MergeRegions
from ancd_ray.stages.regions import CutRegions

_ABOUT = pa.schema([field for field in SCHEMAS["features"] if field.name not in (*FEATURES, *VIEW_FEATURES)])


@dataclass(frozen=True)
class ImageInput:
    """An image to classify.

    Parameters
    ----------
    image
        Path or URI, bytes of an encoded image, or RGB pixels (H, W, 3) uint8.
    name
        Name of the image in the results; by default its path.
    mask
        Its mask, for a model whose detector is `ground_truth`.
    anomaly_map
        Its anomaly map, for a model whose detector is `precomputed`.
    """

    image: str | Path | bytes | NDArray[np.uint8]
    name: str | None = None
    mask: str | Path | bytes | None = None
    anomaly_map: str | Path | bytes | None = None


class Prediction(NamedTuple):
    """Tables of `data/tables.py`; every image is in `image_predictions` or in `quarantine`."""

    image_predictions: pa.Table
    region_predictions: pa.Table
    regions: pa.Table
    quarantine: pa.Table


@dataclass(frozen=True)
class Model:
    """Detector, binarization of its maps, classifier of regions, and merging of regions to images."""

    product: str
    detector: DetectorConfig
    detector_state: State
    mebin: MebinConfig
    score_range: Range | None  # None: the maps are masks
    backbone: BackboneConfig
    classifier: Classifier
    merge: MergeConfig
    unknown_rate: float
    class_ids: Sequence[str]  # by index; they outlive the model (see `jobs/identity/`)
    pixel_range: PixelRange | None = None  # of the deep images it was made from
    roi: Roi | None = None  # region of interest
    provenance: Mapping[str, Any] = field(default_factory=dict)

    # --- saving and loading

    @classmethod
    def of(cls, job: Job, product: str, artifacts: ArtifactSet, class_ids: Sequence[str]) -> Model:
        """Make the model of a finished discovery.

        Parameters
        ----------
        job
            Job with the overrides of the product.
        product
            Name of the product.
        artifacts
            Artifacts of the discovery.
        class_ids
            Ids of its classes, by index.
        """
        folders = [artifacts.files(role).folder for role in ("detector_state", "calibration") if role in artifacts]
        measured = artifacts.table("regions").values["range"]
        steps = {role: artifact.output.fingerprint for role, artifact in artifacts.artifacts.items()}
        return cls(
            product=product,
            detector=job.detector,
            detector_state=read_state(job.detector, folders),
            mebin=job.mebin,
            score_range=Range(*measured) if measured else None,
            backbone=job.backbone,
            classifier=load_classifier(artifacts.files("classifier").read),
            merge=job.merge,
            unknown_rate=job.unknown.rate,
            class_ids=tuple(class_ids),
            pixel_range=PixelRange.find(artifacts.table("images").values),
            roi=Roi.load(artifacts.files("roi").read) if "roi" in artifacts else None,
            provenance={"job": job.name, "ancd_ray": __version__, "steps": steps},
        )

    def save(self, folder: Folder) -> None:
        """Write the files of the model, `model.json` last."""
        for name, data in self.classifier.save().items():
            folder.write(name, data)
        for name, data in self.detector_state.items():
            folder.write(name, data)
        folder.write_json(DOCUMENT, self.describe())

    def describe(self) -> dict[str, Any]:
        """Return the content of `model.json`."""
        names = name_classes(self.classes.n_novel, self.classes.has_normal)
        return {
            "format": FORMAT,
            "product": self.product,
            "detector": self.detector.model_dump(mode="json"),
            "mebin": self.mebin.model_dump(mode="json"),
            "score_range": list(astuple(self.score_range)) if self.score_range else None,
            "backbone": {**self.backbone.model_dump(mode="json"), "digest": self.classifier.backbone_digest},
            "merge": self.merge.model_dump(mode="json"),
            "unknown": {"rate": self.unknown_rate},
            "pixel_range": asdict(self.pixel_range) if self.pixel_range else None,
            "roi": self.roi.write() if self.roi else None,
            "classes": [
                {"index": i, "id": class_id, "name": name, "is_normal": self.classes.has_normal and i == 0}
                for i, (class_id, name) in enumerate(zip(self.class_ids, names, strict=True))
            ],
            "provenance": dict(self.provenance),
        }

    @classmethod
    def load(cls, folder: str | Path, weights: str | None = None) -> Model:
        """Load a model from its folder (a path or URI).

        Parameters
        ----------
        folder
            Folder with `model.json`.
        weights
            Weights file of the backbone, if its location has changed.

        Raises
        ------
        ModelError
            There is no model, or its format is another one.
        """
        place = Folder(str(folder))
        if not place.exists(DOCUMENT):
            raise ModelError(f"{folder}: no model ({DOCUMENT} is missing)")
        document = read_document(place)
        if document.get("format") != FORMAT:
            raise ModelError(f"{folder}: format {document.get('format')} is not {FORMAT}, which this version reads")
        try:
            detector = Job.parse_detector(document["detector"])
            backbone = read_backbone(document, weights)
            mebin, merge = MebinConfig.model_validate(document["mebin"]), MergeConfig.model_validate(document["merge"])
            unknown_rate = UnknownConfig.model_validate(document["unknown"]).rate
            class_ids = tuple(each["id"] for each in document["classes"])
        except (ValidationError, KeyError) as error:
            raise ModelError(f"{folder}: {DOCUMENT} cannot be read: {str(error).splitlines()[0]}") from error
        try:
            state = {name: place.read(name) for name in detector.state_files}
            classifier = load_classifier(place.read)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"{folder}: a file of the model is missing or damaged: {error}") from error
        return cls(
            product=document["product"],
            detector=detector,
            detector_state=state,
            mebin=mebin,
            score_range=Range(*document["score_range"]) if document["score_range"] else None,
            backbone=backbone,
            classifier=classifier,
            merge=merge,
            unknown_rate=unknown_rate,
            class_ids=class_ids,
            pixel_range=PixelRange.find(document),
            roi=Roi.read(document["roi"]) if document.get("roi") else None,
            provenance=document["provenance"],
        )

    @property
    def classes(self) -> Classes:
        """Classes of the classifier."""
        return self.classifier.classes

    @property
    def class_names(self) -> list[str]:
        """Names of the novel classes, by index."""
        return name_classes(self.classes.n_novel, self.classes.has_normal)

    # --- prediction

    def predict(self, images: Iterable[str | Path | bytes | NDArray[np.uint8] | ImageInput]) -> Prediction:
        """Classify images with the functions of the stages.

        Parameters
        ----------
        images
            Images, or paths of images. All of them are in memory at once.

        Returns
        -------
        Tables of predictions, and of images that could not be used.

        Raises
        ------
        ModelError
            The detector needs masks or anomaly maps and no image has one, or the weights of the backbone differ.
        """
        opened, bad, _ = open_files(self.make_rows(images))
        found = self.classify(opened)
        quarantine = pa.concat_tables([conform(bad, SCHEMAS["quarantine"]), found.quarantine])
        return found._replace(quarantine=quarantine)

    def classify(self, opened: Sequence[Mapping[str, Any]]) -> Prediction:
        """Classify the images of rows of the table `images`, which may carry what is read; see `data/sources.py`."""
        opened = attach_range(opened, self.pixel_range, self.roi)
        maps, bad = score_images(self._scorer, opened)
        maps_table = conform(maps, SCHEMAS["maps"])
        cutter = CutRegions(self.mebin, self.score_range, None, self.detector.tile_size, self.roi)
        cut, _, lost = cutter.cut(opened, maps_table.to_pylist())
        bad += lost
        regions = conform(cut, SCHEMAS["regions"])
        tables = {"regions": regions, "maps": maps_table}
        is_trained = isinstance(self.classifier, HeadsClassifier)
        read = () if isinstance(self.classifier, HeadsClassifier) else (self.classifier.feature,)
        views, features = encode_regions(self._backbone, regions.to_pylist(), is_trained, float(not is_trained), read)
        tables |= {"clean_views": conform(views, SCHEMAS["clean_views"])} if is_trained else {}
        schema = pa.schema([*_ABOUT, *(SCHEMAS["features"].field(name) for name in read)], _ABOUT.metadata)
        tables |= {"features": conform(features, schema)}
        found = classify_regions(self.classifier, self.backbone, self.unknown_rate, tables)
        classified = conform(found, SCHEMAS["region_predictions"])
        merged = MergeRegions(self.merge, self.classes.has_normal).merge(opened, classified)
        return Prediction(
            conform(merged, SCHEMAS["image_predictions"]), classified, regions, conform(bad, SCHEMAS["quarantine"])
        )

    def make_rows(self, images: Iterable[str | Path | bytes | NDArray[np.uint8] | ImageInput]) -> list[dict[str, Any]]:
        """Make the rows of `listing` that `predict` starts from, in the order of the images.

        Images in memory are columns of their rows (see `data/sources.py`).
        """
        inputs = [each if isinstance(each, ImageInput) else ImageInput(each) for each in images]
        if self.detector.needs == "masks" and inputs and all(each.mask is None for each in inputs):
            raise ModelError(f"model of {self.product}: its regions come from masks; give the mask of each image")
        if self.detector.reads_maps and inputs and all(each.anomaly_map is None for each in inputs):
            raise ModelError(f"model of {self.product}: it takes precomputed anomaly maps; give the map of each image")
        rows: list[dict[str, Any]] = []
        seen: set[str] = set()
        for number, each in enumerate(inputs):
            row = self._make_row(each, number)
            row["problem"] = "listed more than once" if row["image_id"] in seen else None
            seen.add(row["image_id"])
            rows.append(row)
        return rows

    def _make_row(self, each: ImageInput, number: int) -> dict[str, Any]:
        uri = str(each.image) if isinstance(each.image, str | Path) else None
        name = each.name or uri or f"image-{number}"
        row: dict[str, Any] = {
            "image_id": make_image_id(self.product, name),
            "product": self.product,
            "uri": uri or name,
            "role": "query",
            "label": None,
            "mask_uris": None if each.mask is None else [name],
            "mask_shapes": None,
            "mask_threshold": None,
            "map_uri": None if each.anomaly_map is None else name,
            "captured_at": None,
        }
        contents = {"image_bytes": each.image, "mask_bytes": each.mask, "map_bytes": each.anomaly_map}
        uris = {"image_bytes": "uri", "mask_bytes": "mask_uris", "map_bytes": "map_uri"}
        for key, content in contents.items():
            if isinstance(content, str | Path):
                row[uris[key]] = [str(content)] if key == "mask_bytes" else str(content)
            elif isinstance(content, bytes):
                row[key] = content
            elif content is not None:
                row[key] = encode_png(np.asarray(content, np.uint8))
        return row

    @cached_property
    def _scorer(self) -> Scorer:
        return make_scorer(self.detector, self.backbone.for_images, self.detector_state)

    @cached_property
    def _backbone(self) -> Backbone:
        try:
            backbone = load_cached(self.backbone)
        except ValueError as error:
            raise ModelError(f"model of {self.product}: {error}") from error
        check_weights(self.product, backbone.name, backbone.digest(), self.classifier.backbone_digest)
        return backbone
