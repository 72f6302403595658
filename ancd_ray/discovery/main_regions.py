"""The main region of each image, which is clustered; the others get the classes of the main regions they resemble.

Specks and splinters beside a defect distort any clustering.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancd_ray.method.merging import find_main_regions


def choose_main_regions(image_N: NDArray[Any], area_N: NDArray[Any], score_N: NDArray[Any]) -> NDArray[np.int64]:
    """Choose the region of each image with the largest product of score and area, of equal ones the first.

    Parameters
    ----------
    image_N
        Image of each region: any values, equal for those of the same image.
    area_N, score_N
        Anomalous pixels and scores of the regions.

    Returns
    -------
    Rows of the chosen regions, in increasing order.
    """
    index_N = np.unique(image_N, return_inverse=True)[1]
    return np.sort(find_main_regions(index_N, area_N * score_N.astype(np.float64), tau_alpha=1, rule="area"))
