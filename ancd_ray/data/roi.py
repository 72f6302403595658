"""Region of interest of the images of a product; what is outside is not scored.

It is a polygon, or a mask that is stretched to every image. Either is drawn at any resolution, so that a mask as large
as the image is never needed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ancd_ray.config.base import Section
from ancd_ray.data.images import BadImage, ImageU8, decode_mask, encode_png

ROI = "roi.json"  # file with a region of interest
FOREGROUND_SIDE = 512  # of marks of the foreground
_BORDER = 8  # pixels of them
_MARGIN = 9  # side of the square by which a foreground is widened
_COVERED = (0.02, 0.95)  # shares of the image that a foreground can have
_STORED_SIDE = 2048  # of a mask
OUTSIDE = "the region of interest is outside the image"
_SHIFT = 4  # bits behind the point of OpenCV's coordinates
_ASPECT = 1.02  # ratio of the aspects of mask and image above which it is told

Point = tuple[float, float]


class PolygonRoi(Section):
    """A polygon, in pixels of every image or relative to its width and height (0 to 1)."""

    polygon: Annotated[tuple[Point, ...], Field(min_length=3, max_length=1000)]  # x, y
    units: Literal["relative", "pixels"]

    @model_validator(mode="after")
    def _check_reach(self) -> PolygonRoi:
        x, y = np.array(self.polygon).T
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("roi.polygon has a coordinate that is not finite")
        top = 1 if self.units == "relative" else np.inf
        if x.min() >= top or y.min() >= top or x.max() <= 0 or y.max() <= 0:
            raise ValueError(f"roi.polygon is outside the image; its units are {self.units}")
        if self.units == "relative" and max(x.max(), y.max()) > 2:
            raise ValueError("roi.polygon has coordinates above 2; with `units: pixels` they are pixels")
        return self


class MaskRoi(Section):
    """A mask image, foreground above 0, that is stretched to every image; its path is relative to `data.root`."""

    mask: str


RoiConfig = Literal["auto"] | PolygonRoi | MaskRoi


class Window(NamedTuple):
    """A part of an image in its pixels."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Roi:
    """A region of interest: points (N, 2) of a polygon and their units, or a mask (h, w) of 0 and 255."""

    points: tuple[Point, ...] = ()
    units: str = "relative"
    mask: ImageU8 | None = None

    @classmethod
    def of_polygon(cls, config: PolygonRoi) -> Roi:
        """Make the region of a polygon in the job file."""
        return cls(config.polygon, config.units)

    @classmethod
    def of_mask(cls, mask: ImageU8) -> Roi:
        """Make the region of a mask (H, W) of 0 and 255.

        Raises
        ------
        BadImage
            The mask is empty.
        """
        if not mask.any():
            raise BadImage("the mask is empty")
        scale = _STORED_SIDE / max(mask.shape)
        if scale < 1:
            size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
            mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 127, np.uint8) * np.uint8(255)
        return cls(mask=mask)

    @classmethod
    def whole(cls) -> Roi:
        """Make the region that is the whole image."""
        return cls(((0, 0), (1, 0), (1, 1), (0, 1)))

    @classmethod
    def load(cls, read: Callable[[str], bytes]) -> Roi:
        """Read the region from its file."""
        return cls.read(json.loads(read(ROI)))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Roi:
        """Read what `write` returned."""
        if "mask" in document:
            return cls(mask=decode_mask(base64.b64decode(document["mask"])))
        return cls(tuple((x, y) for x, y in document["polygon"]), document["units"])

    def write(self) -> dict[str, Any]:
        """Return a JSON document of it."""
        if self.mask is not None:
            return {"mask": base64.b64encode(encode_png(self.mask)).decode()}
        return {"polygon": [list(point) for point in self.points], "units": self.units}

    def draw(self, size: tuple[int, int], shape: tuple[int, int], window: Window | None = None) -> NDArray[np.bool_]:
        """Return which points are inside: the centers of cells (h, w) that divide the image, or a window of it.

        Parameters
        ----------
        size
            Height and width of the image in pixels.
        shape
            Number of rows and columns of cells.
        window
            Part of the image that the cells divide; None: all of it.
        """
        height, width = size
        window = window or Window(0, 0, width, height)
        if self.mask is not None:
            rows = _find_cells(window.y0, window.y1, height, shape[0], self.mask.shape[0])
            columns = _find_cells(window.x0, window.x1, width, shape[1], self.mask.shape[1])
            return np.asarray(self.mask[np.ix_(rows, columns)] > 0)
        unit = np.array([width, height]) if self.units == "relative" else np.ones(2)
        scale = np.array([shape[1], shape[0]]) / [window.x1 - window.x0, window.y1 - window.y0]
        points_N2 = (np.array(self.points) * unit - [window.x0, window.y0]) * scale - 0.5  # of cells: centers at 0, 1
        inside = np.zeros(shape, np.uint8)
        reach = 1 << 24  # of OpenCV's coordinates; farther away nothing changes
        fixed = np.clip(points_N2 * (1 << _SHIFT), -reach, reach).round().astype(np.int32)
        cv2.fillPoly(inside, [fixed], 1, shift=_SHIFT)
        return inside.view(bool)

    def find_box(self, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """Return the box (left, top, right, bottom) of the region in an image; None if it is outside."""
        height, width = size
        scale = max(1.0, max(size) / 2048)
        shape = (max(1, round(height / scale)), max(1, round(width / scale)))
        x, y, w, h = cv2.boundingRect(self.draw(size, shape).view(np.uint8))
        if not w:
            return None
        across, down = width / shape[1], height / shape[0]
        return int(x * across), int(y * down), round((x + w) * across), round((y + h) * down)

    def describe_aspect(self, sizes: Iterable[tuple[int, int]]) -> str | None:
        """Describe in a line that images (height, width) have another aspect than the mask; None if they have not."""
        if self.mask is None:
            return None
        height, width = self.mask.shape
        others = [size for size in sizes if not 1 / _ASPECT < size[0] * width / (size[1] * height) < _ASPECT]
        if not others:
            return None
        return (
            f"{len(others)} images have another aspect than the mask of the region of interest ({width} x {height}; "
            f"{others[0][1]} x {others[0][0]}): it is stretched to them"
        )


def apply_roi(map_HW: NDArray[Any], roi: Roi | None, size: tuple[int, int]) -> NDArray[Any]:
    """Return a map without scores outside the region of interest: 0, or its lowest value if that is negative.

    Raises
    ------
    BadImage
        The region is outside the image.
    """
    if roi is None:
        return map_HW
    inside = roi.draw(size, (map_HW.shape[0], map_HW.shape[1]))
    if not inside.any():
        raise BadImage(OUTSIDE)
    return np.where(inside, map_HW, map_HW.dtype.type(min(map_HW.min(), 0)))


def mark_foreground(rgb: ImageU8) -> NDArray[np.bool_]:
    """Mark what differs in color from the border of an image (H, W, 3), by Otsu's threshold, at a fixed size."""
    side = FOREGROUND_SIDE
    small = cv2.GaussianBlur(cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA), (0, 0), 2)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    sides = (lab[:_BORDER], lab[-_BORDER:], lab[:, :_BORDER], lab[:, -_BORDER:])
    border = np.concatenate([each.reshape(-1, 3) for each in sides])
    distance = np.linalg.norm(lab - np.median(border, axis=0), axis=2)
    levels = np.clip(distance, 0, 255).astype(np.uint8)
    return np.asarray(cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] > 0)


def find_foreground(marked: Sequence[NDArray[Any]]) -> Roi | None:
    """Find the largest foreground that images of a product share, as the mask of a region of interest.

    Of the pixels that are foreground in most images, it is the largest part, without holes and a little wider. None
    if it is hardly there or nearly everything, as in images that a texture fills.

    Parameters
    ----------
    marked
        Results of `mark_foreground`.
    """
    if not marked:
        return None
    share = np.mean(marked, axis=0)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((share >= 0.5).astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    contours, _ = cv2.findContours((labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(share.shape, np.uint8), contours, -1, 255, cv2.FILLED)
    mask = np.asarray(cv2.dilate(filled, np.ones((_MARGIN, _MARGIN), np.uint8)), np.uint8)
    covered = float((mask > 0).mean())
    return Roi(mask=mask) if _COVERED[0] < covered < _COVERED[1] else None


def _find_cells(start: float, stop: float, length: int, n_cells: int, n_pixels: int) -> NDArray[np.int64]:
    """Return which of `n_pixels` of a mask lie under the centers of cells between two places along an image."""
    center = (start + (np.arange(n_cells) + 0.5) * (stop - start) / n_cells) / length
    return np.asarray(np.clip((center * n_pixels).astype(np.int64), 0, n_pixels - 1))
