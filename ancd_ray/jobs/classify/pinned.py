"""Models that a job pins: they are copied to the output folder, so that workers and later runs have the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ancd_ray.config.base import PRODUCT
from ancd_ray.config.load import JobError
from ancd_ray.data.store import Folder, digest
from ancd_ray.models.find import find_model
from ancd_ray.models.format import DOCUMENT, FORMAT, read_document


@dataclass(frozen=True)
class PinnedModel:
    """A model: where it is, the content of its `model.json`, and the digest of what its predictions depend on."""

    source: Folder
    document: Mapping[str, Any]
    digest: str

    @property
    def classes(self) -> list[str]:
        """Names of its classes, by index."""
        return [each["name"] for each in self.document["classes"]]

    @property
    def needs(self) -> str:
        """What its detector needs; see `DetectorConfig.needs`."""
        from ancd_ray.config.job import Job

        return Job.parse_detector(self.document["detector"]).needs

    def folder(self, root: Folder) -> Folder:
        """Return its folder in an output folder."""
        return root / "models" / self.digest

    def adopt(self, root: Folder) -> None:
        """Copy it to the output folder, its document last; a copy that is there is used again."""
        target = self.folder(root)
        if target.exists(DOCUMENT):
            return
        for name in self.source.files():
            if name != DOCUMENT:
                self.source.copy_to(name, target, name)
        target.write_json(DOCUMENT, self.document)


def locate_model(place: str, product: str) -> str:
    """Return where the model of a product is; `{product}` in a place is its name."""
    return place.replace(PRODUCT, product)


def pin_model(place: str, product: str) -> PinnedModel:
    """Find the model of a product.

    Parameters
    ----------
    place
        Run folder, folder of a model, or `models:/name@alias`; `{product}` in it is the name of the product.
    product
        Name of the product.

    Raises
    ------
    ModelError, JobError, TrackingProblem
        There is no model, or its format is another one.
    """
    place = locate_model(place, product)
    if place.startswith("models:/"):
        from ancd_ray.jobs.tracking import download_model

        place = str(download_model(place))
    source = Folder(find_model(place, product))
    document = read_document(source)
    if document.get("format") != FORMAT:
        raise JobError(
            f"model: {source} has format {document.get('format')}, this version reads {FORMAT}; run its discovery again"
        )
    content = {key: value for key, value in document.items() if key not in ("provenance", "product")}
    files = {name: source.sha256(name) for name in source.files() if name != DOCUMENT}
    return PinnedModel(source, document, digest([content, files])[:16])
