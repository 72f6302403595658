"""Model of a job file; `load.py` reads it and explains validation errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import Field, TypeAdapter, model_validator

from ancd_ray.config.base import PRODUCT, Name, Section
from ancd_ray.config.sections import (
    AlertsConfig,
    BackboneConfig,
    ClassesConfig,
    DiscoveryConfig,
    MebinConfig,
    MergeConfig,
    RediscoverConfig,
    ResourcesConfig,
    SubmitConfig,
    TrackingConfig,
    TrainConfig,
    UnknownConfig,
)
from ancd_ray.config.sweep import SweepConfig
from ancd_ray.data.layouts import LAYOUTS
from ancd_ray.detectors import DETECTORS

# Unions of all registered detectors and layouts, discriminated by `name` and `layout`.
if TYPE_CHECKING:
    from ancd_ray.data.layouts.base import ProductConfig as Product
    from ancd_ray.detectors.base import DetectorConfig as Detector
    from ancd_ray.detectors.base import DetectorConfig as DetectorOrModels  # `mode: classify` reads that of the model
else:
    Detector = Annotated[Union[tuple(DETECTORS)], Field(discriminator="name")]  # noqa: UP007  (built at run time)
    DetectorOrModels = Union[Detector, None]  # noqa: UP007
    Product = Annotated[Union[tuple(LAYOUTS)], Field(discriminator="layout")]  # noqa: UP007


class DataConfig(Section):
    """Location and layout of the images."""

    root: str
    products: Annotated[tuple[Product, ...], Field(min_length=1)]
    base: Product | None = None  # the labelled base set D^l, with masks; null trains without one

    @model_validator(mode="after")
    def _check_names(self) -> DataConfig:
        names = [product.name for product in (*self.products, *([self.base] if self.base else []))]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two products are named {twice[0]!r}; give each its own name")
        return self


OF_THE_MODEL = ("detector", "mebin", "backbone", "train", "merge", "discovery", "classes", "unknown", "sweep")


class Job(Section):
    """A job: the discovery of classes, or the classification of images with finished models."""

    name: Name
    mode: Literal["discover", "classify"] = "discover"
    # Of `mode: classify`: a run folder, the folder of a model, or models:/name@alias; {product} is the product's name.
    model: str | None = None
    keep: Literal["none", "uncertain", "all"] = "uncertain"  # regions whose pictures `mode: classify` keeps
    # Whether `mode: classify` classifies images again that are published with an earlier model.
    reclassify: bool = True
    rediscover: RediscoverConfig = RediscoverConfig()
    alerts: AlertsConfig | None = None  # null: the report says what is unusual, and the exit code is 0
    data: DataConfig
    detector: DetectorOrModels = None  # type: ignore[assignment]  # required by `mode: discover`
    mebin: MebinConfig = MebinConfig()
    backbone: BackboneConfig = BackboneConfig()
    train: TrainConfig = TrainConfig()
    merge: MergeConfig = MergeConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    classes: ClassesConfig = ClassesConfig()
    unknown: UnknownConfig = UnknownConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: TrackingConfig = TrackingConfig()
    submit: SubmitConfig = SubmitConfig()
    sweep: SweepConfig | None = None
    output: str | None = None  # folder or URI; null: runs/<name>

    @property
    def starts_at_classes(self) -> bool:
        """Whether there is a training that starts at the classes of `spectral`."""
        return self.discovery.method == "anomalyncd" and self.train.start == "spectral"

    @property
    def averages_views(self) -> bool:
        """Whether averages over views are clustered, by the method or before a training."""
        return self.discovery.method == "spectral" or self.starts_at_classes

    def resolve_ring(self) -> Job:
        """Set `backbone.ring` if it is not given, and the training starts at `spectral`."""
        has_average = self.backbone.name == "lite" and self.backbone.mask == "class"
        if self.backbone.ring is not None or not self.starts_at_classes or not has_average:
            return self
        return self.model_copy(update={"backbone": self.backbone.model_copy(update={"ring": 0.5})})

    @model_validator(mode="after")
    def _check_mode(self) -> Job:
        if self.mode == "discover":
            if self.detector is None:
                raise ValueError("detector: is missing; it finds the anomalous regions")
            if self.model is not None:
                raise ValueError("model: is used with `mode: classify`; a discovery makes a model")
            return self
        if self.model is None:
            raise ValueError("model: is missing; `mode: classify` applies the model of a finished run")
        if given := [key for key in OF_THE_MODEL if key in self.model_fields_set]:
            raise ValueError(f"{given[0]}: is that of the model in `mode: classify`; leave it out")
        if self.data.base is not None:
            raise ValueError("data.base: is used by discoveries; leave it out in `mode: classify`")
        if self.tracking.register_ is not None:
            raise ValueError("tracking.register: is used by discoveries; `mode: classify` makes no model")
        return self

    @model_validator(mode="after")
    def _check_registered_name(self) -> Job:
        name = self.tracking.register_.name if self.tracking.register_ else None
        if name is not None and PRODUCT not in name and len(self.data.products) > 1:
            raise ValueError(f"tracking.register.name: several products would be {name!r}; write {PRODUCT} into it")
        return self

    @staticmethod
    def parse_detector(document: object) -> Detector:
        """Parse the settings of a detector, as in the section `detector`."""
        parsed: Detector = TypeAdapter(Detector).validate_python(document)
        return parsed

    @property
    def output_root(self) -> str:
        """Folder or URI under which steps and runs are kept."""
        return self.output or f"runs/{self.name}"
