"""Fits a detector to images without the stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.backbones.lite import Lite
from ancd_ray.data.images import BadImage
from ancd_ray.detectors.base import CALIBRATION, AnomalyMap, DetectorConfig, Scorer
from ancd_ray.detectors.calibration import Calibration


def fit(config: DetectorConfig, images: Sequence[Mapping[str, Any]], calibration: Calibration | None = None) -> Scorer:
    """Fit a detector of one part to rows of `images`, and build its scorer."""
    collected = [(image["image_id"], found) for image, found in config.collect(images, Lite(), len(images))]

    def read(size: int, neighborhood: int) -> Iterator[tuple[str, NDArray[np.float16]]]:
        for image_id, found in collected:
            if not isinstance(found, BadImage):
                (own,) = [each for each in found if each[:2] == (size, neighborhood)]
                yield image_id, own.features_ND

    state, _ = config.fit(read)
    files = {config.name_state(0): state}
    return config.make_scorer(Lite, files | ({CALIBRATION: calibration.write()} if calibration else {}))


def compute_maps(scorer: Scorer, images: Sequence[Mapping[str, Any]]) -> list[AnomalyMap]:
    """Compute the maps of images, all of which are good."""
    maps = []
    for found in scorer.score(images):
        assert not isinstance(found, BadImage), found
        maps.append(found)
    return maps
