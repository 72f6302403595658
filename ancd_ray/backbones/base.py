"""Interface of backbones, the only part of them that detectors and training depend on.

Shape suffixes: B images, H height, W width, N patch tokens, L visible tokens (padded), D token width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancd_ray.method.views import ColorNormalization, Image, tensors


class Encoded(NamedTuple):
    """Output of the frozen trunk, the input of the tail; tokens that are not visible may be omitted.

    Parameters
    ----------
    cls_BD
        Class tokens.
    tokens_BND
        Patch tokens.
    visible_BN
        Boolean mask of patch tokens that the class token may attend to.
    """

    cls_BD: Tensor
    tokens_BND: Tensor
    visible_BN: Tensor

    def pack(self) -> Encoded:
        """Move visible tokens to the front and truncate to the largest number of visible tokens of a view.

        The result has at least one token per view: (B, L, D).
        """
        longest = max(1, int(self.visible_BN.sum(dim=1).max()))
        order_BL = self.visible_BN.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
        tokens_BLD = self.tokens_BND.gather(1, order_BL[..., None].expand(-1, -1, self.tokens_BND.shape[-1]))
        return Encoded(self.cls_BD, tokens_BLD, self.visible_BN.gather(1, order_BL))

    @classmethod
    def concat(cls, parts: Sequence[Encoded]) -> Encoded:
        """Concatenate batches along B, padded to the longest."""
        longest = max(part.tokens_BND.shape[1] for part in parts)
        missing = [longest - part.tokens_BND.shape[1] for part in parts]
        tokens = [F.pad(part.tokens_BND, (0, 0, 0, n)) for part, n in zip(parts, missing, strict=True)]
        visible = [F.pad(part.visible_BN, (0, n)) for part, n in zip(parts, missing, strict=True)]
        return cls(torch.cat([part.cls_BD for part in parts]), torch.cat(tokens), torch.cat(visible))


def inputs(model: Backbone, views: Sequence[tuple[Image, Image]]) -> tuple[Tensor, Tensor]:
    """Convert views and their masks to the input of `model.encode`."""
    return tensors(views, model.mean, model.std, model.color_normalization)


def view_rows(encoded: Encoded, views: Sequence[tuple[Mapping[str, Any], int]]) -> list[dict[str, Any]]:
    """Make rows of the table `views` of encoded views, of which each has its region's row and a number."""
    cls = encoded.cls_BD.half().cpu().numpy()
    tokens = encoded.tokens_BND.half().cpu().numpy()
    visible = encoded.visible_BN.cpu().numpy()
    return [
        {
            **{key: region[key] for key in ("region_id", "product", "role", "label", "score")},
            "view": view,
            "cls": cls[i].tobytes(),
            "tokens": tokens[i][visible[i]].tobytes(),
        }
        for i, (region, view) in enumerate(views)
    ]


class Tail(Protocol):
    """Interface of the trainable end of a backbone, the last mask-guided block."""

    dim: int  # width of the returned class token

    def __call__(self, cls_BD: Tensor, tokens_BLD: Tensor, key_mask_BL: Tensor) -> Tensor:
        """Compute class tokens (B, dim) from visible tokens.

        Padding is marked by False in the key mask.
        """

    def calibrate(self, cls_ND: Tensor) -> None:
        """Fit normalization statistics to the class tokens of the training set (no labels), if it has any."""


class Backbone(Protocol):
    """Interface of a frozen trunk."""

    name: str
    device: str
    dim: int  # width of its tokens
    widths: tuple[int, ...]  # widths of the scales at the start of a token; frozen features weight the scales equally
    view_size: int  # side of the views, pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color_normalization: ColorNormalization  # applied to views before the trunk
    multiple: int  # sides of images for `patch_features` are multiples of it, pixels
    detector_layers: tuple[int, ...]  # layers used by detectors, the finest first; patches are those of `stride`
    class_layers: tuple[int, ...]  # layers whose features, of the widths above, tell classes of defects apart
    stride: int  # side of a patch of the first of these layers, pixels of the image
    lr: float  # default learning rate of the tail
    projector_width: int  # hidden width of the projector

    @property
    def tokens_ignore_mask(self) -> bool:
        """Whether the attention of patch tokens is not masked, so that features can be taken from a masked pass."""

    def encode(self, images_BCHW: Tensor, masks_BHW: Tensor, keep_hidden: bool = False) -> Encoded:
        """Compute the output of all blocks before the trainable one, without gradient.

        Parameters
        ----------
        images_BCHW
            Normalized images.
        masks_BHW
            Masks of the anomalies in 0..1.
        keep_hidden
            Whether tokens that the mask hides from the class token are computed to the end, too.
        """

    def make_tail(self) -> nn.Module:
        """Create a new trainable end that implements `Tail`."""

    def patch_features(self, images_BCHW: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        """Compute feature maps (B, C, rows, cols) of the given layers for detectors, without gradient."""

    def digest(self) -> str:
        """Compute the sha256 of the frozen weights."""
