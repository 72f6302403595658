"""Models that a job pins: they are copied to the output folder, so that workers and later runs have the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ancd_ray.config.base import PRODUCT
from ancd_ray.data.store import Folder, digest
from ancd_ray.jobs.classify.runs import find_last_model
from ancd_ray.models.find import find_model
from ancd_ray.models.format import DOCUMENT, FORMAT, ModelError, read_document

if TYPE_CHECKING:
    from ancd_ray.detectors.base import DetectorConfig


@dataclass(frozen=True)
class PinnedModel:
    """A model: where it is, the content of its `model.json`, and the digest of what its predictions depend on.

    `changed` are files that it has in place of those in `source`.
    """

    source: Folder
    document: Mapping[str, Any]
    digest: str
    changed: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Names of its classes, by index."""
        return [each["name"] for each in self.document["classes"]]

    @property
    def class_ids(self) -> list[str]:
        """Ids of its classes, by index."""
        return [each["id"] for each in self.document["classes"]]

    @property
    def detector(self) -> DetectorConfig:
        """Settings of its detector."""
        from ancd_ray.config.job import Job

        return Job.parse_detector(self.document["detector"])

    def folder(self, root: Folder) -> Folder:
        """Return its folder in an output folder."""
        return root / "models" / self.digest

    def change(self, document: Mapping[str, Any], files: Mapping[str, bytes]) -> PinnedModel:
        """Return a model with another document and some other files, which are written when it is adopted."""
        digests = {name: self.source.sha256(name) for name in self.source.files() if name not in (DOCUMENT, *files)}
        digests |= {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        return PinnedModel(self.source, document, _digest(document, digests), files)

    def read(self, name: str) -> bytes:
        """Read one of its files."""
        return self.changed[name] if name in self.changed else self.source.read(name)

    def adopt(self, root: Folder) -> None:
        """Copy it to the output folder, its document last; a copy that is there is used again."""
        target = self.folder(root)
        if target.exists(DOCUMENT):
            return
        for name in self.source.files():
            if name not in (DOCUMENT, *self.changed):
                self.source.copy_to(name, target, name)
        for name, data in self.changed.items():
            target.write(name, data)
        target.write_json(DOCUMENT, self.document)


def locate_model(place: str, product: str) -> str:
    """Return where the model of a product is; `{product}` in a place is its name."""
    return place.replace(PRODUCT, product)


def pin_model(place: str, product: str, registry: str | None = None) -> PinnedModel:
    """Find the model of a product.

    Parameters
    ----------
    place
        Run folder, folder of a model, or `models:/name@alias`; `{product}` in it is the name of the product.
    product
        Name of the product.
    registry
        Tracking server or database for `models:/`; None: `MLFLOW_TRACKING_URI`.

    Raises
    ------
    ModelError, TrackingProblem
        There is no model, or its format is another one.
    """
    place = locate_model(place, product)
    if place.startswith("models:/"):
        from ancd_ray.jobs.tracking import download_model

        place = str(download_model(place, registry))
    return pin_folder(Folder(find_model(place, product)))


def pin_folder(source: Folder) -> PinnedModel:
    """Return the model in a folder.

    Raises
    ------
    ModelError
        Its format is another one.
    """
    document = read_document(source)
    if document.get("format") != FORMAT:
        raise ModelError(
            f"model: {source} has format {document.get('format')}, this version reads {FORMAT}; run its discovery again"
        )
    files = {name: source.sha256(name) for name in source.files() if name != DOCUMENT}
    return PinnedModel(source, document, _digest(document, files))


def find_pinned(root: Folder, place: str, product: str, registry: str | None) -> tuple[PinnedModel, list[str]]:
    """Find the model of a product; if the registry does not answer, that of the last job.

    Parameters
    ----------
    root
        Output folder, whose table of runs says which model the last job had.
    place, product, registry
        As in `pin_model`.

    Returns
    -------
    The model, and lines of warning.

    Raises
    ------
    ModelError, TrackingProblem
        There is no model.
    """
    from ancd_ray.jobs.tracking import RegistryAway  # which imports models itself

    try:
        return pin_model(place, product, registry), []
    except RegistryAway as error:
        last = find_last_model(root, product)
        if last is None:
            raise
        return pin_folder(root / "models" / last), [f"{product}: {error}; the model of the last job, {last}, is used"]


def _digest(document: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Compute the digest of what the predictions of a model depend on, given the sha256 of its files."""
    content = {key: value for key, value in document.items() if key not in ("provenance", "product")}
    return digest([content, files])[:16]
