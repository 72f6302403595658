"""Features of a region against its surroundings: patch tokens averaged inside the mask, less those in a ring around it.

What a region shares with the part that it is on, such as texture and light, is in both averages.

Shape suffixes: B views, 2 inside and ring, H W pixels, D feature width; `...` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from ancd_ray.backbones.base import Backbone
    from ancd_ray.method.views import Image

RING = 0.5  # share of the ring's average that is subtracted


def encode_rings(model: Backbone, views: Sequence[tuple[Image, Image]]) -> Tensor:
    """Average patch tokens of views without their mean color, inside their masks and in the rings around them.

    Parameters
    ----------
    model
        Backbone that encodes the views.
    views
        Images of one size and their masks, of one size as well. An empty mask or ring counts as the whole view.

    Returns
    -------
    Averages (B, 2, D) of the tokens of `model.class_layers`, each L2-normalized at its own grid.
    """
    import torch
    import torch.nn.functional as F

    from ancd_ray.method.rings import find_rings
    from ancd_ray.method.views import tensors

    twice = list(views) * 2 if len(views) == 1 else views  # products with one row round differently
    with torch.no_grad():
        images_BCHW, masks_BHW = tensors(twice, model.mean, model.std, "centred")
        weights = (masks_BHW, find_rings(masks_BHW))
        averages = []
        for level_BDHW in model.patch_features(images_BCHW, model.class_layers):
            unit_BDHW = F.normalize(level_BDHW.float(), dim=1)
            averages.append(torch.stack([_average(unit_BDHW, each.to(unit_BDHW.device)) for each in weights], dim=1))
    return torch.cat(averages, dim=2)[: len(views)].cpu()


def subtract_rings(averages_2D: NDArray[Any], share: float = RING) -> NDArray[np.float64]:
    """Subtract a share of the ring's average from that inside the mask: (..., 2, D) to (..., D)."""
    inside_D, ring_D = np.moveaxis(np.asarray(averages_2D, np.float64), -2, 0)
    return np.asarray(inside_D - share * ring_D)


def _average(tokens_BDHW: Tensor, weight_BHW: Tensor) -> Tensor:
    """Average tokens by their shares of a weight; by equal ones where it is 0 everywhere."""
    import torch
    import torch.nn.functional as F

    share_BHW = F.adaptive_avg_pool2d(weight_BHW[:, None], (tokens_BDHW.shape[2], tokens_BDHW.shape[3]))[:, 0]
    total_B11 = share_BHW.sum(dim=(1, 2), keepdim=True)
    share_BHW = torch.where(total_B11 > 0, share_BHW, torch.ones_like(share_BHW))
    share_BHW = share_BHW / share_BHW.sum(dim=(1, 2), keepdim=True)
    return torch.einsum("bdhw,bhw->bd", tokens_BDHW, share_BHW)
