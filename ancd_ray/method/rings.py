"""Rings around masks: what a region shares with the part that it is on is in its ring as well.

Shape suffixes: B views, H height, W width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_GRID, _NEAR, _WIDE = 56, 3, 13  # cells per side in which the ring is made, and cells across of its two dilations


def find_rings(masks_BHW: Tensor) -> Tensor:
    """Compute the ring around each mask, 0 or 1 on a coarse grid (B, 56, 56): its wide dilation less its near one."""
    covered_B1HW = (F.adaptive_max_pool2d(masks_BHW[:, None], _GRID) > 0).float()
    wide_B1HW, near_B1HW = (F.max_pool2d(covered_B1HW, width, 1, width // 2) for width in (_WIDE, _NEAR))
    return (wide_B1HW - near_B1HW)[:, 0]
