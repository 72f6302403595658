"""Averages the maps of several detectors, each on the scale of its own normal images or references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

import cv2
import numpy as np
from pydantic import Field, field_validator

from ancd_ray.data.images import BadImage
from ancd_ray.data.roles import ListedImage
from ancd_ray.detectors.base import CALIBRATION, AnomalyMap, DetectorConfig, ImageRow, Scorer, State
from ancd_ray.detectors.calibration import Calibration
from ancd_ray.detectors.graph import Graph
from ancd_ray.detectors.musc import MuSc
from ancd_ray.detectors.patchcore import PatchCore
from ancd_ray.detectors.precomputed import Precomputed

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone

Part = Annotated[Union[PatchCore, MuSc, Graph, Precomputed], Field(discriminator="name")]  # noqa: UP007  (evaluated by pydantic)


class Fuse(DetectorConfig):
    """Mean of the maps of several detectors."""

    name: Literal["fuse"]
    detectors: Annotated[tuple[Part, ...], Field(min_length=2, max_length=4)]

    resources: ClassVar[Literal["images", "model"]] = "model"

    @field_validator("detectors")
    @classmethod
    def _check_maps(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if sum(part.needs == "maps" for part in value) > 1:
            raise ValueError("only one detector can read maps: a product has one folder of them")
        return value

    @property
    def parts(self) -> tuple[DetectorConfig, ...]:
        """The detectors whose maps are averaged."""
        return self.detectors

    @property
    def tile_size(self) -> int | None:
        """Side of the tiles of the first detector that has some."""
        return next((part.tile_size for part in self.detectors if part.tile_size), None)

    @property
    def n_normals(self) -> int | None:
        """Number of normal images that are listed at most."""
        return max((part.n_normals or 0 for part in self.detectors), default=0) or None

    @property
    def for_fit(self) -> Fuse:
        """The detector with the keys that its state does not depend on at their defaults."""
        return self.model_copy(update={"detectors": tuple(part.for_fit for part in self.detectors)})

    @property
    def for_listing(self) -> Fuse:
        """The detector with the keys that a listing has answered at their defaults."""
        return self.model_copy(update={"detectors": tuple(part.for_listing for part in self.detectors)})

    @property
    def uses_backbone(self) -> bool:  # type: ignore[override]  # of the class, where it does not depend on the settings
        """Whether one of the detectors does."""
        return any(part.uses_backbone for part in self.detectors)

    def pin_files(self) -> Fuse:
        """Return the detectors with the digests of the files that they name."""
        return self.model_copy(update={"detectors": tuple(part.pin_files() for part in self.detectors)})

    def describe_inputs(self, images: Sequence[ListedImage]) -> list[str]:
        """Describe what the detectors read beside the images."""
        return [line for part in self.detectors for line in part.describe_inputs(images)]

    def find_problems(self, product: str, images: Sequence[ListedImage]) -> list[str]:
        """Return the error messages of all detectors."""
        return [problem for part in self.detectors for problem in part.find_problems(product, images)]

    def name_state(self, part: int) -> str:
        """Return the name of the file with the state of a part."""
        return f"{part}-{self.detectors[part].state_file}"

    def make_scorer(self, backbone: Callable[[], Backbone], state: State) -> Scorer:
        """Build the scorer from those of the detectors."""
        calibration = Calibration.read(state[CALIBRATION])
        scorers = [
            part.make_scorer(backbone, select_state(self, state, i) | {CALIBRATION: own.write()})
            for i, (part, own) in enumerate(zip(self.detectors, calibration.parts, strict=True))
        ]
        return FusedScorer(scorers, [own.scale for own in calibration.parts])


def select_state(detector: DetectorConfig, state: State, part: int) -> dict[str, bytes]:
    """Select the files of the state of a part of a detector, without its calibration."""
    name = detector.parts[part].state_file
    return {} if name is None else {name: state[detector.name_state(part)]}


class FusedScorer:
    """Averages the maps of scorers, each divided by its scale; see `base.Scorer`."""

    def __init__(self, scorers: Sequence[Scorer], scales: Sequence[float]) -> None:
        self._scorers, self._scales = scorers, scales

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Compute maps at the resolution of the first detector."""
        found = zip(*(scorer.score(images) for scorer in self._scorers), strict=True)
        return [self._fuse(maps) for maps in found]

    def _fuse(self, maps: Sequence[AnomalyMap | BadImage]) -> AnomalyMap | BadImage:
        good: list[AnomalyMap] = []
        for found in maps:
            if isinstance(found, BadImage):
                return found
            good.append(found)
        return fuse_maps(good, self._scales)


def fuse_maps(maps: Sequence[AnomalyMap], scales: Sequence[float]) -> AnomalyMap:
    """Average maps at the resolution of the first, each divided by its scale."""
    height, width = maps[0].shape
    total: Any = np.zeros((height, width), np.float32)
    for values, scale in zip(maps, scales, strict=True):
        total += cv2.resize(values.astype(np.float32) / scale, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(total / len(maps), np.float32)
