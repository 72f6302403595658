"""Sections of the job file that stages read: binarization, backbone, training, merging, and how a job runs.

Unknown keys are rejected. Every default is here, in `sweep.py`, or in the file of a detector or layout.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ancd_ray.config.base import Digest, Section, Share, reset_keys
from ancd_ray.config.registration import RegisterConfig

# --- finding regions --------------------------------------------------------------------------------------------


class MebinConfig(Section):
    """Main element binarization (Section III-B) and cropping."""

    # Table III; otsu and fixed take one threshold, no erosion. calibrated: above the 99 % quantile of normal images.
    # auto: calibrated for products with normal images, mebin for others.
    binarize: Literal["auto", "mebin", "otsu", "fixed", "calibrated"] = "auto"
    threshold: Share = 0.5  # epsilon of `binarize: fixed`, of the normalised map
    crop: Literal["regions", "image"] = "regions"  # Table VI; image: the whole image with its mask is one region
    levels: Annotated[int, Field(ge=8, le=256)] = 64
    min_run: PositiveInt = 4  # the paper's tau
    erosion_px: Annotated[int, Field(ge=1, le=64)] = 6
    count_rule: Literal["longest_run", "paper"] = "longest_run"
    erode: Literal["mask", "counts_only"] = "mask"
    range: Literal["measured"] | tuple[float, float] = "measured"
    floor: float | None = None  # lower end of the range when every image is defective
    padding: Annotated[float, Field(ge=0, le=2)] = 0.1
    min_crop: Share = 0.1  # smallest radius of a crop, as a share of a side of the image
    merge_gap: Share = 0.01
    relative_to: Literal["auto", "short", "long"] = "auto"  # that side; auto: long as in the paper, short beyond 4:1
    # A crop is at most this many times as wide as its region, whatever `min_crop` says; null: no limit.
    max_enlargement: Annotated[float, Field(ge=1)] | None = None
    keep: Literal["est+1", "est", "all"] = "est+1"


# --- learning classes -------------------------------------------------------------------------------------------


class BackboneConfig(Section):
    """The frozen backbone: `lite`, or the name of any timm ViT with a class token."""

    name: str = "lite"
    weights: str = "auto"  # auto | package | timm | a .safetensors or .pth file
    sha256: Digest | None = None
    mask_layers: PositiveInt = 9  # L_m: the last blocks whose class token sees only the mask (Table V)
    mask: Literal["class", "patch", "all", "none"] = "class"  # tokens whose attention is masked (Table IV)
    # Colors of a view: kept, without their mean (centred), or also with unit contrast (standardised).
    color_normalization: Literal["kept", "centred", "standardised"] = "kept"
    # Share of the average around a region that is subtracted from its class token, of views without their mean color
    # (lite). null: half for a training that starts at `spectral`, else nothing.
    ring: Share | None = None

    @property
    def for_images(self) -> BackboneConfig:
        """The backbone as detectors use it, on whole images: settings that concern views are at their defaults."""
        return reset_keys(self, "mask", "mask_layers", "color_normalization", "ring")


class ViewsConfig(Section):
    """Source of the augmented views: drawn once and stored (`bank: 8`), or drawn in every step (`fresh: true`)."""

    bank: Annotated[int, Field(ge=2, le=256)] | None = None  # views per novel region
    base: Annotated[int, Field(ge=2, le=256)] = 2  # views per base region; base sets usually have more regions
    fresh: bool = False

    @model_validator(mode="before")
    @classmethod
    def _check_source(cls, value: Any) -> Any:
        if isinstance(value, dict) and bool(value.get("fresh")) == (value.get("bank") is not None):
            raise ValueError("give either `bank: 8` (views per sub-image) or `fresh: true`")
        return value


class TrainConfig(Section):
    """Mask-guided contrastive representation learning (Section III-C); the paper's values."""

    epochs: PositiveInt = 50
    max_steps: PositiveInt | None = None  # over all epochs, which are shortened; null: every region once an epoch
    batch_size: Annotated[int, Field(ge=4)] = 32  # over all workers
    lambda_: Share = Field(0.3, alias="lambda")
    mu: Annotated[float, Field(ge=0)] = 4.0
    lr: PositiveFloat | None = None  # null: the backbone's, 0.003 (the paper) for a ViT and 0.1 for lite
    # Prototypes, and the sizes that classes are drawn to: those of the classes of `spectral` on frozen features, or
    # random and equal ones, as in the paper.
    start: Literal["spectral", "random"] = "spectral"
    heads: PositiveInt = 4
    head: Literal["silhouette", "loss"] = "silhouette"  # how the head is selected; loss: the smallest, as in the paper
    temperatures: Literal["released", "paper"] = "released"
    regularize: Literal["all", "novel"] = "all"  # classes whose mean prediction is balanced (L_reg of eq. 9)
    correction: bool = True  # pull the pseudo labels of low-scoring regions to "normal" (eq. 4)
    views: ViewsConfig = ViewsConfig(bank=8)
    workers: PositiveInt = 1
    seed: int = 0
    checkpoint_every: PositiveInt = 10  # epochs


class MergeConfig(Section):
    """Region merging (Section III-D)."""

    tau_alpha: PositiveFloat = 100.0  # pixels of length; small: the largest region decides
    rule: Literal["paper", "average", "score", "area"] = "paper"  # weight of a region (Table VII)


Trained = Literal["anomalyncd", "iic", "gatcluster", "scan", "uno", "gcd", "simgcd", "amend"]
Clustering = Literal["spectral", "linked", "kmeans", "ward", "gmm", "anomaly_clustering", "uniformaly", "semi_kmeans"]


class DiscoveryConfig(Section):
    """Method of discovery: a clustering of frozen features (`discovery/clusterings`), or a training.

    Trainings are the paper's and those that it is compared with (`discovery/objectives`).
    """

    method: Literal[Clustering, Trained] = "spectral"
    # Turns and mirrorings after which a defect is of the same class, for methods that average over views.
    symmetry: Literal["square", "rotations", "none"] = "rotations"
    max_regions: PositiveInt = 20_000  # images it looks at, a seeded sample, and regions it trains on, at most
    # Growth of the archive after which its classes are discovered anew; null: new images are classified with the model.
    refit_when_grown_by: Annotated[float, Field(ge=0)] | None = None

    @property
    def trains(self) -> bool:
        """Whether the method trains, by the section `train`."""
        return self.method in get_args(Trained)

    @property
    def reads_base(self) -> bool:
        """Whether the method learns from a labeled base set."""
        return self.method in ("anomalyncd", "uno", "gcd", "simgcd", "amend", "semi_kmeans")


class ClassesConfig(Section):
    """Number of classes to look for, including the normal one."""

    novel: PositiveInt | Literal["from_labels", "auto"] = "from_labels"  # auto: estimated on frozen features
    # Whether one of them is normal; auto: if images are labeled as normal, or if nothing is labeled and `good` is not
    # excluded.
    normal: Literal["auto", "yes", "no"] = "auto"
    max_classes: Annotated[int, Field(ge=3, le=64)] = 12  # the largest number of `auto` and of trees

    @field_validator("normal", mode="before")
    @classmethod
    def _read_boolean(cls, value: Any) -> Any:
        """Accept what YAML makes of `yes` and `no`."""
        return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


class UnknownConfig(Section):
    """The verdict "unknown" on regions and images that resemble none of the discovery."""

    rate: Annotated[float, Field(ge=0, lt=1)] = 0.03  # share of the regions of known classes that get it, too


class RediscoverConfig(Section):
    """New classes among unknown regions of many nights, or beside known ones in a later discovery."""

    at: PositiveInt | None = 30  # unknown regions of a product by which new classes are looked for; null: never
    accept: Literal["person", "auto"] = "person"  # who makes a candidate a class (`ancd-ray classes accept`)


class AlertsConfig(Section):
    """What of a night of `mode: classify` a person should look at; `submit` then ends with exit code 3."""

    new_class: bool = True  # a candidate for a new class
    control_limit: bool = True  # a class with unusually many or few images
    unknown: Share = 0.1  # share of unknown images
    quarantined: Share = 0.05  # share of images that cannot be used
    drift: PositiveFloat = 0.25  # population stability index of scores, confidences, brightness
    # URL that gets the night as JSON; it is tried three times, and never ends the job.
    webhook: Annotated[str, Field(pattern=r"^https?://")] | None = None


# --- running ----------------------------------------------------------------------------------------------------


class ResourcesConfig(Section):
    """Resources and limits of a job."""

    cpus: PositiveInt | None = None  # null: all of this machine
    gpus: Annotated[int, Field(ge=0)] | None = None  # null: all that are available
    in_process_below: Annotated[int, Field(ge=0)] = 64  # fewer images than this are processed without Ray
    max_quarantined: Share = 0.5  # a step fails if a larger share of its input is quarantined


class TrackingConfig(Section):
    """MLflow. Without a URI: an sqlite file in the output folder."""

    uri: str | None = None
    experiment: str | None = None  # null: the job's name
    # Models are registered when a discovery ends, or the best ones of a sweep; null: they are not.
    register_: RegisterConfig | None = Field(None, alias="register")


class SubmitConfig(Section):
    """Submission of a job to a cluster."""

    image: str | None = None  # container image with ancd-ray; null: this package is uploaded
