"""Which regions have fixed views, and of which symmetry; without the libraries that compute them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ancd_ray.engine.context import is_sampled

if TYPE_CHECKING:
    import pyarrow as pa

Symmetry = Literal["square", "rotations", "none"]
N_VIEWS: dict[Symmetry, int] = {"square": 12, "rotations": 8, "none": 5}
"""Number of fixed views: eight, four or no turns, and four scales."""


@dataclass(frozen=True)
class Viewed:
    """A share of the regions, all or only the main one of each image, and the symmetry of their fixed views."""

    symmetry: Symmetry
    is_main: bool
    share: float

    def find(self, regions: pa.Table) -> set[str]:
        """Find the ids of the regions that have views in a table `regions` of whole images."""
        from ancd_ray.discovery.main_regions import choose_main_regions

        ids = np.asarray(regions.column("region_id"))
        if self.is_main and len(ids):
            ids = ids[
                choose_main_regions(*(np.asarray(regions.column(name)) for name in ("image_id", "area", "score")))
            ]
        return {region_id for region_id in ids.tolist() if is_sampled(region_id, self.share)}
