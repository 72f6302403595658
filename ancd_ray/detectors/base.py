"""Interface of detectors: settings in the job file, requirements, and the computation of anomaly maps.

A detector is a module with a subclass of `DetectorConfig`, and an entry in `detectors/__init__.py`. Everything that
other packages ask about a detector, they ask this class. Modules of detectors import torch inside functions, so that
job files are checked without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ancd_ray.config.base import Section, reset_keys
from ancd_ray.data.images import BadImage
from ancd_ray.data.roles import ListedImage

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone

ImageRow = Mapping[str, Any]  # a row of the table `images`
AnomalyMap = NDArray[Any]  # (h, w), aligned with the whole image, at the detector's own resolution
State = Mapping[str, bytes]  # files of a fitted detector, by name
Needs = Literal["nothing", "normals", "references", "masks", "maps"]
CALIBRATION = "calibration.json"  # file of a state; see `detectors/calibration.py`
D = TypeVar("D", bound="DetectorConfig")


class Scorer(Protocol):
    """Interface of scorers, which compute anomaly maps."""

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute the anomaly map of each image, or the reason why there is none.

        Maps are raw, neither clipped nor rescaled: uint8 if the source has 8 bits, else float. The map of an image does
        not depend on the other images of the call. An image that the state has been fitted to is scored as if it had
        not been (leave-one-out).
        """


class Patches(NamedTuple):
    """Features that a state is fitted to: some patches of an image at one size and neighbourhood."""

    image_size: int  # long side, pixels
    neighborhood: int  # side of the square of patches that a feature is the mean of
    features_ND: NDArray[np.float16]


class DetectorConfig(Section):
    """Settings of a detector; class variables declare its requirements.

    `needs` is what an archive must have:

    - `normals`: normal images, which the state is fitted to;
    - `references`: only the images themselves; the state is fitted to a seeded sample of them;
    - `masks`, `maps`: files beside the images, in an archive and for every new image;
    - `nothing`: the images, one by one.
    """

    name: str
    needs: ClassVar[Needs] = "nothing"
    resources: ClassVar[Literal["images", "model"]] = "images"  # model: it runs a network, on a GPU if there is one
    uses_backbone: ClassVar[bool] = False
    state_file: ClassVar[str | None] = None  # what `fit` makes; None: it is not fitted
    maps_are_masks: ClassVar[bool] = False  # regions are cut from the maps as they are, without binarization
    is_proposed: ClassVar[bool] = False  # drafted jobs take the first that their archive permits
    score_keys: ClassVar[tuple[str, ...]] = ()  # keys that the fitted state does not depend on
    listing_keys: ClassVar[tuple[str, ...]] = ()  # keys that only choose which images are listed

    @classmethod
    def get_name(cls) -> str:
        """Return its name in job files."""
        (name,) = get_args(cls.model_fields["name"].annotation)
        return str(name)

    @property
    def parts(self) -> tuple[DetectorConfig, ...]:
        """The detectors that it consists of, itself if it is one."""
        return (self,)

    @property
    def is_fitted(self) -> bool:
        """Whether it, or a part of it, has a state that is fitted to images of the product."""
        return any(part.state_file is not None for part in self.parts)

    @property
    def state_files(self) -> tuple[str, ...]:
        """Names of the files of its state."""
        own = tuple(self.name_state(i) for i, part in enumerate(self.parts) if part.state_file is not None)
        return own if self.maps_are_masks else (*own, CALIBRATION)

    @property
    def reads_maps(self) -> bool:
        """Whether maps belong to the images of an archive."""
        return any(part.needs == "maps" for part in self.parts)

    @property
    def tile_size(self) -> int | None:
        """Side of the tiles of large images, in their pixels; None: images are scored as a whole."""
        return None

    @property
    def n_normals(self) -> int | None:
        """Number of normal images that are listed at most, a seeded sample; None: all."""
        return None

    @property
    def n_references(self) -> int:
        """Number of images that the state of a detector with `needs: references` is fitted to."""
        return 0

    @property
    def for_fit(self: D) -> D:
        """The detector with the keys that its state does not depend on at their defaults."""
        return reset_keys(self, *self.score_keys)

    @property
    def for_listing(self: D) -> D:
        """The detector with the keys that a listing has answered at their defaults."""
        return reset_keys(self, *self.listing_keys)

    @property
    def learns(self) -> bool:
        """Whether its state is fitted to images; a state can also be made of files that it names."""
        return self.needs in ("normals", "references")

    def pin_files(self: D) -> D:
        """Return the detector with the digests of the files that it names, for fingerprints."""
        return self

    def describe_inputs(self, images: Sequence[ListedImage]) -> list[str]:  # noqa: ARG002  (most read images alone)
        """Describe in lines what it reads beside the images; a few files are opened."""
        return []

    def find_problems(self, product: str, images: Sequence[ListedImage]) -> list[str]:
        """Return error messages of one line if the detector cannot run on a product."""
        if self.needs == "normals" and not any(image.role == "normal" for image in images):
            return [
                f"product {product}: has no normal images, which {self.name} learns from; give it some (train/good, "
                "`normals:`), or take detector.name: musc, which needs none"
            ]
        if self.needs == "masks" and not any(image.has_mask for image in images):
            return [f"product {product}: has no masks, which detector.name {self.name} takes for anomaly maps"]
        return []

    def name_state(self, part: int) -> str:  # noqa: ARG002  (it has one part)
        """Return the name of the file with the state of a part."""
        assert self.state_file is not None
        return self.state_file

    def choose_images(self, images: Iterable[tuple[str, str]]) -> frozenset[str]:
        """Choose the images that the state is fitted to, among pairs of id and role; returns their ids."""
        if self.needs == "normals":
            return frozenset(image_id for image_id, role in images if role == "normal")
        return choose_references((image_id for image_id, role in images if role == "query"), self.n_references)

    def collect(
        self, images: Sequence[ImageRow], backbone: Backbone, n_images: int
    ) -> Iterator[tuple[ImageRow, Sequence[Patches] | BadImage]]:
        """Compute the features of images of a shard that the state is fitted to; there are `n_images` in total."""
        raise NotImplementedError

    def fit(self, patches: Callable[[int, int], Iterator[tuple[str, NDArray[np.float16]]]]) -> tuple[bytes, FitFigures]:
        """Fit the state to collected features.

        Parameters
        ----------
        patches
            Yields the id of each image and its features (N, D), of an image size and a neighbourhood.

        Returns
        -------
        state : bytes
            Content of the state file.
        figures : dict
            Figures about the fit.
        """
        raise NotImplementedError

    def make_scorer(self, backbone: Callable[[], Backbone], state: State) -> Scorer:
        """Build the scorer.

        Parameters
        ----------
        backbone
            Loads the backbone of the job; call it only if the detector uses it.
        state
            The files of its state: what `fit` returned, and, except while it is made, the calibration.
        """
        raise NotImplementedError


FitFigures = dict[str, Any]


def choose_references(image_ids: Iterable[str], n: int) -> frozenset[str]:
    """Choose n images by the hash of their ids; the ids themselves divide shards and features already."""
    keyed = sorted((hashlib.sha256(f"reference\n{image_id}".encode()).digest(), image_id) for image_id in image_ids)
    return frozenset(image_id for _, image_id in keyed[:n])


def check_values(values: NDArray[np.generic]) -> AnomalyMap:
    """Check that a map can be binarized, and return it.

    Raises
    ------
    BadImage
        The map is empty, or has non-finite values.
    """
    if values.size == 0:
        raise BadImage("the anomaly map is empty")
    if not np.isfinite(values).all():
        raise BadImage("the anomaly map has values that are not finite")
    return values
