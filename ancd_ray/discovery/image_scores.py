"""Anomaly scores of images, by which normal ones are told.

Shape suffixes: I images, N regions, M known normal images, F figures of an image.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow.compute as pc

from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.discovery.normal_curve import IMAGE_FIGURES, stack_figures
from ancd_ray.engine.artifacts import Table


class ImageScores(NamedTuple):
    """Anomaly scores of all I images, of each region's image, and of M known normal images (None: there are none).

    Each has F figures, of which the first is the score.
    """

    images_IF: Floats
    of_regions_NF: Floats
    reference_MF: Floats | None = None


def read_scores(features: Table, maps: Table | None, normal_scores: Table | None = None) -> ImageScores | None:
    """Read the anomaly scores of images from the tables `maps` and `normal_scores`; None without maps."""
    if maps is None:
        return None
    table = maps.read(["image_id", *IMAGE_FIGURES])
    scores_IF = stack_figures(table)
    image_ids = features.read(["image_id"]).column("image_id")
    image_N = pc.index_in(image_ids, value_set=table.column("image_id").combine_chunks()).to_numpy()
    known_MF = stack_figures(normal_scores.read([*IMAGE_FIGURES])) if normal_scores else None
    known_MF = known_MF if known_MF is not None and len(known_MF) else None  # it was not calibrated on normal images
    return ImageScores(scores_IF, scores_IF[image_N], known_MF)
