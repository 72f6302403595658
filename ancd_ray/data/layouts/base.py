"""Keys of the job file that products of all layouts have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, PositiveInt, field_validator

from ancd_ray.config.base import Name, Section
from ancd_ray.data.roi import RoiConfig
from ancd_ray.data.roles import GOOD
from ancd_ray.detectors import DETECTORS

if TYPE_CHECKING:
    from ancd_ray.detectors.base import DetectorConfig as Detector
else:  # union of all registered detectors, discriminated by `name`
    Detector = Annotated[Union[tuple(DETECTORS)], Field(discriminator="name")]  # noqa: UP007


# labels of the normal class, in any case
NORMAL_LABELS = ("good", "ok", "normal", "free", "no_defect")


class LayoutError(Exception):
    """A product's folder does not match its layout; the message is one line."""


class ProductConfig(Section):
    """Keys that every product has; paths are relative to `data.root`."""

    name: Name
    layout: str
    path: str = "."
    detector: Detector | None = None  # for this product, instead of the job's
    # Anomaly maps of `detector.name: precomputed`: a folder, a Parquet file, or a template (`m/{class}/{stem}.npy`).
    maps: str | None = None
    bits: Annotated[int, Field(ge=8, le=32)] | None = None  # depth of the camera; null: measured over all images
    # Part of the images that is looked at: `auto` (their largest foreground), a polygon, or a mask image; null: all.
    roi: RoiConfig | None = None
    mask_threshold: Annotated[int, Field(ge=0)] | None = (
        None  # mask values above it are foreground; null: see docs/inputs.md
    )
    normal_labels: tuple[str, ...] = NORMAL_LABELS
    exclude: tuple[str, ...] = ()  # classes to leave out, such as `combined` or `good`
    novel: PositiveInt | None = None  # number of classes of this product, instead of `classes.novel`
    overrides: dict[str, Any] = Field({})  # values for this product by dotted key: `train.lambda: 0.5`

    @field_validator("maps")
    @classmethod
    def _check_template(cls, value: str | None) -> str | None:
        if unknown := set(re.findall(r"{(.*?)}", value or "")) - {"class", "dir", "stem"}:
            raise ValueError(f"{{{min(unknown)}}} is none of {{class}}, {{dir}} (with a final slash) and {{stem}}")
        return value

    def is_normal(self, label: str) -> bool:
        """Whether a label is a name of the normal class."""
        return label.casefold() in {name.casefold() for name in self.normal_labels}

    def name_label(self, label: str | None) -> str | None:
        """Return a label, with one name for the normal class."""
        return GOOD if label is not None and self.is_normal(label) else label
