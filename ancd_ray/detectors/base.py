"""Interface of detectors: settings in the job file, requirements, and the computation of anomaly maps.

A detector is a module with a subclass of `DetectorConfig`, and an entry in `detectors/__init__.py`. Modules of
detectors import torch inside functions, so that job files are checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from ancd_ray.config.base import Section, reset_keys
from ancd_ray.data.images import BadImage
from ancd_ray.data.roles import ListedImage

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone

ImageRow = Mapping[str, Any]  # a row of the table `images`
AnomalyMap = NDArray[Any]  # (h, w), aligned with the whole image, at the detector's own resolution
D = TypeVar("D", bound="DetectorConfig")


class Scorer(Protocol):
    """Interface of scorers, which compute anomaly maps."""

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute the anomaly map of each image, or the reason why there is none.

        Maps are raw, neither clipped nor rescaled: uint8 if the source has 8 bits, else float. The map of an image does
        not depend on the other images of the call. An image with the role `normal` is scored as if the state had not
        been fitted to it (leave-one-out).
        """


class DetectorConfig(Section):
    """Settings of a detector; class variables declare its requirements."""

    name: str
    needs: ClassVar[Literal["nothing", "normals", "masks", "maps"]] = "nothing"
    resources: ClassVar[Literal["images", "model"]] = "images"  # model: it uses the backbone, on a GPU if there is one
    maps_are_masks: ClassVar[bool] = False  # regions are cut from the maps as they are, without binarization
    score_keys: ClassVar[tuple[str, ...]] = ()  # keys that the fitted state does not depend on

    def make_scorer(self, backbone: Callable[[], Backbone], state: bytes | None) -> Scorer:
        """Build the scorer.

        Parameters
        ----------
        backbone
            Loads the backbone of the job; call it only if the detector uses it.
        state
            What `fit` returned; None for a detector that is not fitted.
        """
        raise NotImplementedError

    @property
    def for_fit(self: D) -> D:
        """The detector with the keys that its state does not depend on at their defaults."""
        return reset_keys(self, *self.score_keys)

    def find_problems(self, product: str, images: Sequence[ListedImage]) -> list[str]:
        """Return error messages of one line if the detector cannot run on a product."""
        if self.needs == "normals" and not any(image.role == "normal" for image in images):
            return [
                f"product {product}: has no normal images, which {self.name} learns from; "
                "give it some (train/good, `normals:`), or another detector.name"
            ]
        if self.needs == "masks" and not any(image.has_mask for image in images):
            return [f"product {product}: has no masks, which detector.name {self.name} takes for anomaly maps"]
        return []


class FittedDetector(DetectorConfig):
    """A detector with a state that is fitted to normal images."""

    max_normals: PositiveInt = 3000  # normal images that it is fitted to, a seeded sample
    needs: ClassVar[Literal["nothing", "normals", "masks", "maps"]] = "normals"
    resources: ClassVar[Literal["images", "model"]] = "model"
    state_file: ClassVar[str]

    def collect(
        self, images: Sequence[ImageRow], backbone: Backbone, n_normals: int
    ) -> Iterator[tuple[ImageRow, Sequence[Mapping[str, Any]] | BadImage]]:
        """Compute rows of `patches` for each normal image of a shard; there are `n_normals` in total."""
        raise NotImplementedError

    def fit(self, patches: Callable[[int], Iterator[tuple[str, NDArray[np.float16]]]]) -> tuple[bytes, dict[str, Any]]:
        """Fit the state to collected features.

        Parameters
        ----------
        patches
            Yields the id of each image and its features (N, D) of an image size.

        Returns
        -------
        state : bytes
            Content of the state file.
        values : dict
            Figures about the fit.
        """
        raise NotImplementedError


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
