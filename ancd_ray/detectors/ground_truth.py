"""Ground-truth masks as anomaly maps, to evaluate discovery with a perfect detector (Table X)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from ancd_ray.data.images import BadImage
from ancd_ray.data.sources import read_mask
from ancd_ray.detectors.base import AnomalyMap, DetectorConfig, ImageRow, Needs, State

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone


class GroundTruth(DetectorConfig):
    """Ground-truth masks as anomaly maps (Table X of the paper)."""

    name: Literal["ground_truth"]
    needs: ClassVar[Needs] = "masks"
    maps_are_masks: ClassVar[bool] = True
    is_proposed: ClassVar[bool] = True

    def make_scorer(self, backbone: Callable[[], Backbone], state: State) -> MaskReader:  # noqa: ARG002
        """Build the scorer."""
        return MaskReader()


class MaskReader:
    """Reads masks; see `data.sources.read_mask`."""

    def score(self, images: Sequence[ImageRow]) -> list[AnomalyMap | BadImage]:
        """Return the masks (H, W) of 0 and 255 at image size."""
        return [_read(image) for image in images]


def _read(image: ImageRow) -> AnomalyMap | BadImage:
    try:
        return read_mask(image)
    except BadImage as error:
        return error
