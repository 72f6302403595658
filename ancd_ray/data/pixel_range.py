"""Range of the pixel values of a product's deep images (more than 8 bits a channel), by which they become 8 bits.

Depth is a property of a camera: an image that is scaled by its own range has another gain than its neighbor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_DEPTHS = (8, 10, 12, 14, 16, 24, 32)


class Extremes(NamedTuple):
    """Lowest and highest finite value of a deep image."""

    is_integer: bool
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Extremes:
        """Find the extremes of the values of an image."""
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        return cls(values.dtype.kind in "iu", low, high)


@dataclass(frozen=True)
class PixelRange:
    """Range of all deep images of a product: `bits` of integers, None if there are none; `low` and `high` of floats."""

    bits: int | None = None
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def find(cls, values: Mapping[str, Any]) -> PixelRange | None:
        """Find the range in the figures of a catalog or the document of a model; None without deep images."""
        document = values.get("pixel_range")
        return None if document is None else cls(**document)

    @classmethod
    def of(cls, extremes: Iterable[Extremes], bits: int | None = None) -> PixelRange:
        """Combine the extremes of the images of a product; `bits` is the declared depth."""
        found = list(extremes)
        top = max((each.high for each in found if each.is_integer), default=None)
        if top is not None and bits is None:
            bits = next((n for n in _DEPTHS if top < 2**n), 32)
        low = min((each.low for each in found if not each.is_integer), default=0.0)
        high = max((each.high for each in found if not each.is_integer), default=1.0)
        return cls(bits, *((0.0, 1.0) if low >= 0 and high <= 1 else (low, high)))

    def to_8_bit(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Scale integers by their depth, and floats by the range."""
        if values.dtype.kind in "iu":
            bits = self.bits or 16
            return np.asarray(np.clip(values, 0, 2**bits - 1) >> max(bits - 8, 0), np.uint8)
        low, high = self.low, self.high
        scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-12)
        return np.asarray(np.clip(scaled, 0, 1) * 255, np.uint8)
