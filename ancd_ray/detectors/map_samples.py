"""Looks into a few precomputed maps, so that `plan` tells how they will be read, and whether they are upside down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ancd_ray.data.images import BadImage, ImageU8, read_bytes, read_header
from ancd_ray.data.listed import ListedImages
from ancd_ray.data.roles import ListedImage
from ancd_ray.data.sources import has_mask, read_map, read_mask
from ancd_ray.detectors.base import AnomalyMap

LOOKED_AT = 12


@dataclass(frozen=True)
class MapSample:
    """A map, with the size (height, width) of its image and its mask, if there is one; or why it cannot be used."""

    values: AnomalyMap | BadImage
    image_size: tuple[int, int] = (0, 0)
    mask: ImageU8 | None = None


def read_samples(images: Sequence[ListedImage]) -> list[MapSample]:
    """Read maps at even distances in a listing; of half of them the images have masks, if there are masks."""
    listed = ListedImages.collect(images)
    has_map = pc.and_(pc.equal(listed.column("role"), "query"), listed.column("map_uri").is_valid())
    has_mask = pc.or_(listed.column("mask_uris").is_valid(), listed.column("mask_shapes").is_valid())
    chosen = {*_spread(has_map, LOOKED_AT), *_spread(pc.and_(has_map, has_mask), LOOKED_AT // 2)}
    return [_read_sample(listed[i]) for i in sorted(chosen)]


def _spread(is_chosen: Any, n: int) -> list[int]:
    numbers: list[int] = pc.indices_nonzero(is_chosen).to_pylist()
    return numbers[:: max(1, -(-len(numbers) // n))]


def _read_sample(image: ListedImage) -> MapSample:
    try:
        header = read_header(read_bytes(image.uri))
        row = {**asdict(image), "height": header.height, "width": header.width, "orientation": header.orientation}
        return MapSample(read_map(row), (header.height, header.width), read_mask(row) if has_mask(row) else None)
    except BadImage as error:
        return MapSample(error)


def describe_maps(
    samples: Sequence[MapSample], value_range: tuple[float, float], anomalous: Literal["high", "low"]
) -> list[str]:
    """Describe in lines type, range, size and polarity of maps.

    Parameters
    ----------
    samples
        Maps that were looked at.
    value_range, anomalous
        What the job declares.
    """
    good = [sample for sample in samples if not isinstance(sample.values, BadImage)]
    reasons = Counter(str(sample.values) for sample in samples if isinstance(sample.values, BadImage))
    notes = [f"{n} of {len(samples)} maps looked at cannot be used: {reason}" for reason, n in reasons.items()]
    if not good:
        return notes
    maps = [sample.values for sample in good if not isinstance(sample.values, BadImage)]
    low, high = min(float(each.min()) for each in maps), max(float(each.max()) for each in maps)
    kinds = "/".join(sorted({str(each.dtype) for each in maps}))
    line = f"{len(maps)} maps looked at: {kinds}, values {low:.4g} to {high:.4g}"
    if any(each.dtype.kind != "f" for each in maps):
        line += f"; integers are scaled to {value_range[0]:g}..{value_range[1]:g} (detector.value_range)"
    sizes = {(each.shape, sample.image_size) for each, sample in zip(maps, good, strict=True)}
    if resized := sorted(pair for pair in sizes if pair[0] != pair[1]):
        (height, width), (rows, columns) = resized[0]
        line += f"; maps of {height} x {width} px are resized to their images of {rows} x {columns}"
        if any(abs(np.log((h * c) / (w * r))) > 0.05 for (h, w), (r, c) in resized):
            line += ", which changes their aspect: a map must cover the whole image"
    notes.append(line)
    if warning := _check_polarity(good, anomalous):
        notes.append(warning)
    return notes


def _check_polarity(samples: Sequence[MapSample], anomalous: Literal["high", "low"]) -> str | None:
    """Return a warning if maps seem to be of the other polarity: by masks, or, without, by what most pixels are."""
    other = "low" if anomalous == "high" else "high"
    votes = [vote for sample in samples if (vote := _is_higher_inside(sample)) is not None]
    if votes:
        if 2 * sum(vote == (anomalous == "high") for vote in votes) >= len(votes):
            return None
        told = f"in {sum(vote != (anomalous == 'high') for vote in votes)} of {len(votes)} maps, defects have {other}"
        return (
            f"{told} values: the maps are inverted, or pair with other images; `detector.anomalous: {other}` turns them"
        )
    levels = [_measure_level(sample.values) for sample in samples if not isinstance(sample.values, BadImage)]
    known = [level for level in levels if level is not None]
    is_mostly_high = bool(known) and float(np.median(known)) > 0.5
    if is_mostly_high != (anomalous == "high"):
        return None
    told = f"most pixels of most maps have {anomalous} values, as if nearly everything were anomalous"
    return f"{told}; if the maps are inverted, `detector.anomalous: {other}` turns them"


def _is_higher_inside(sample: MapSample) -> bool | None:
    """Whether the mean of a map is higher inside the mask than outside; None if that cannot be told."""
    if isinstance(sample.values, BadImage) or sample.mask is None or not sample.mask.any() or sample.mask.all():
        return None
    height, width = sample.values.shape
    is_inside = cv2.resize(sample.mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    if not is_inside.any() or is_inside.all():
        return None
    values = sample.values.astype(np.float64)
    return bool(values[is_inside].mean() > values[~is_inside].mean())


def _measure_level(values: NDArray[np.generic]) -> float | None:
    """Return where the median of a map is between its extremes; None if it is constant."""
    low, middle, high = (float(each) for each in np.quantile(values.astype(np.float64), (0, 0.5, 1)))
    return (middle - low) / (high - low) if high > low else None
