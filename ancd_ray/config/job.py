"""The job file as frozen models: one YAML document is one job (its `sweep:` section is in `config_sweep.py`).

Unknown keys are refused; every default is here and nowhere else. `jobfile.py` reads, overrides and explains errors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ancd_ray.config.base import Name, Section, Share
from ancd_ray.config.sweep import Sweep

# --- detectors ---------------------------------------------------------------------------------------------------


class Precomputed(Section):
    """Anomaly maps made elsewhere (.npy, .png of 8 or 16 bit, .tiff)."""

    name: Literal["precomputed"]
    value_range: tuple[float, float] = (0.0, 1.0)  # what the smallest and largest stored value of the format mean

    @field_validator("value_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("the lower end must be below the upper one")
        return value


class GroundTruth(Section):
    """The masks themselves as maps (Table X of the paper)."""

    name: Literal["ground_truth"]


Side = Annotated[int, Field(ge=64, le=2048)]


class PatchCore(Section):
    """A memory bank of normal patches; the distance to its nearest one is the anomaly score."""

    name: Literal["patchcore"]
    # Long side in pixels, the aspect is kept; of several ([320, 512]) the maps are averaged, at the size of the first.
    image_size: Side | Annotated[tuple[Side, ...], Field(min_length=1, max_length=4)] = 320
    coreset: PositiveInt = 8000  # patches in the memory bank
    candidates: PositiveInt = 60000  # patches that the greedy coreset chooses from
    smoothing: Annotated[float, Field(ge=0)] = 4.0  # sigma of the Gaussian on the map, in its pixels
    contrast: Annotated[float, Field(ge=1, le=8)] = 2.0  # exponent within a map, whose maximum stays; 1: distances
    brightness: bool = True  # bring every image to the same mean and contrast first

    @field_validator("image_size")
    @classmethod
    def _distinct(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("the same size stands there twice")
        return value

    @property
    def sizes(self) -> tuple[int, ...]:
        """The long sides at which it looks at an image."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)


Detector = Annotated[Precomputed | GroundTruth | PatchCore, Field(discriminator="name")]


# --- data -------------------------------------------------------------------------------------------------------


class _Product(Section):
    """What every product has; paths are relative to `data.root`."""

    name: Name
    path: str = "."
    detector: Detector | None = None  # for this product, instead of the job's
    maps: str | None = None  # folder of anomaly maps for `detector.name: precomputed`, paired by relative name
    exclude: tuple[str, ...] = ()  # classes to leave out, such as `combined` or `good`
    novel: PositiveInt | None = None  # number of classes of this product, over `classes.novel`
    overrides: dict[str, Any] = Field({})  # dotted key → its value for this product alone: `train.lambda: 0.5`


class MvtecProduct(_Product):
    """`train/good`, `test/<class>`, `ground_truth/<class>/<stem>_mask.png`."""

    layout: Literal["mvtec"]


class MtdProduct(_Product):
    """`MT_<Class>/Imgs/*.jpg` with a `.png` mask beside each; `MT_Free` are the normal ones."""

    layout: Literal["mtd"]
    normals: str | None = None  # list of the normal training files, one name a line; the other free images are tests


class FolderProduct(_Product):
    """Unlabelled images anywhere below `path`; optionally a folder of normal ones."""

    layout: Literal["folder"]
    normals: str | None = None


class ManifestProduct(_Product):
    """A CSV or Parquet file with a column `uri`, and optionally `label`, `mask`, `role` and `captured_at`."""

    layout: Literal["manifest"]


Product = Annotated[MvtecProduct | MtdProduct | FolderProduct | ManifestProduct, Field(discriminator="layout")]


class Data(Section):
    """Where the images are."""

    root: str
    products: Annotated[tuple[Product, ...], Field(min_length=1)]
    base: Product | None = None  # the labelled base set D^l, with masks; null trains without one

    @model_validator(mode="after")
    def _names_differ(self) -> Data:
        names = [product.name for product in (*self.products, *([self.base] if self.base else []))]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two products are named {twice[0]!r}; give each its own name")
        return self


# --- finding regions --------------------------------------------------------------------------------------------


class Mebin(Section):
    """Main element binarization (Section III-B) and cropping."""

    binarize: Literal["mebin", "otsu", "fixed"] = "mebin"  # Table III; otsu and fixed take one threshold, no erosion
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
    min_crop: Share = 0.1  # smallest radius of a crop, as a share of the image's long side
    merge_gap: Share = 0.01
    keep: Literal["est+1", "est", "all"] = "est+1"


# --- learning classes -------------------------------------------------------------------------------------------


class Backbone(Section):
    """The frozen trunk: `lite`, or the name of any timm ViT with a class token."""

    name: str = "lite"
    weights: str = "auto"  # auto | package | timm | a .safetensors or .pth file
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    mask_layers: PositiveInt = 9  # L_m: the last blocks whose class token sees only the mask (Table V)
    mask: Literal["class", "patch", "all", "none"] = "class"  # tokens whose attention is masked (Table IV)
    # Of a view, before the trunk sees it: kept, its mean colour taken off (centred), its contrast too (standardised).
    levels: Literal["kept", "centred", "standardised"] = "kept"


class Views(Section):
    """Where the augmented views come from: drawn once and kept (`bank: 8`), or `fresh: true` in every step."""

    bank: Annotated[int, Field(ge=2, le=256)] | None = None  # views a novel region
    base: Annotated[int, Field(ge=2, le=256)] = 2  # views a region of the base set, of which there are usually more
    fresh: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_of(cls, value: Any) -> Any:
        if isinstance(value, dict) and bool(value.get("fresh")) == (value.get("bank") is not None):
            raise ValueError("give either `bank: 8` (views a sub-image) or `fresh: true`")
        return value


class Train(Section):
    """Mask-guided contrastive representation learning (Section III-C); the paper's values."""

    epochs: PositiveInt = 50
    batch_size: Annotated[int, Field(ge=4)] = 32  # over all workers
    lambda_: Share = Field(0.3, alias="lambda")
    mu: Annotated[float, Field(ge=0)] = 4.0
    lr: PositiveFloat | None = None  # null: what suits the backbone, 0.003 (the paper) for a ViT, 0.1 for lite
    heads: PositiveInt = 4
    head: Literal["silhouette", "loss"] = "silhouette"  # which of them classifies; loss: the smallest, as in the paper
    temperatures: Literal["released", "paper"] = "released"
    correction: bool = True  # pull the pseudo labels of low-scoring regions to "normal" (eq. 4)
    views: Views = Views(bank=8)
    workers: PositiveInt = 1
    seed: int = 0
    checkpoint_every: PositiveInt = 10  # epochs


class Merge(Section):
    """Region merging (Section III-D)."""

    tau_alpha: PositiveFloat = 100.0  # pixels of length; small: the largest region decides
    rule: Literal["paper", "average", "score", "area"] = "paper"  # what weighs a region (Table VII)


class Discovery(Section):
    """What sorts the regions: the paper's training, or a clustering of frozen features (`ancd_ray/baselines`)."""

    method: Literal["anomalyncd", "linked", "kmeans", "ward", "gmm", "anomaly_clustering", "uniformaly", "gcd"] = (
        "anomalyncd"
    )


class Classes(Section):
    """How many classes to look for, the normal one included."""

    novel: PositiveInt | Literal["from_labels", "auto"] = "from_labels"  # auto: estimated on frozen features
    at_most: Annotated[int, Field(ge=3, le=64)] = 12  # the largest number that `auto` tries


# --- running ----------------------------------------------------------------------------------------------------


class Resources(Section):
    """What a job may use, and when it gives up."""

    cpus: PositiveInt | None = None  # null: all of this machine
    gpus: Annotated[int, Field(ge=0)] | None = None  # null: all there are
    in_process_below: Annotated[int, Field(ge=0)] = 64  # fewer images than this are worked on without starting Ray
    max_quarantined: Share = 0.5  # a step that loses more than this share of its input fails


class Tracking(Section):
    """MLflow. Without a URI: an sqlite file in the output folder."""

    uri: str | None = None
    experiment: str | None = None  # null: the job's name


class Submit(Section):
    """How a job travels to a cluster."""

    image: str | None = None  # container image that holds ancd-ray; null sends this package along


class Job(Section):
    """A whole job."""

    name: Name
    data: Data
    detector: Detector
    mebin: Mebin = Mebin()
    backbone: Backbone = Backbone()
    train: Train = Train()
    merge: Merge = Merge()
    discovery: Discovery = Discovery()
    classes: Classes = Classes()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    submit: Submit = Submit()
    sweep: Sweep | None = None
    output: str | None = None  # folder or URI; null: runs/<name>

    @property
    def output_root(self) -> str:
        """The folder or URI under which steps and runs are kept."""
        return self.output or f"runs/{self.name}"
