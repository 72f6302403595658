"""What every backbone offers; detectors and training know nothing else of it.

Shape suffixes: B images, H height, W width, N patch tokens, L visible tokens (padded), D token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancd_ray.method.views import ColorNormalization, Image, tensors


class Encoded(NamedTuple):
    """Output of the frozen trunk: all that training needs of a view. Tokens that are not visible may be left out."""

    cls_BD: Tensor
    tokens_BND: Tensor
    visible_BN: Tensor  # bool: patch tokens that the mask lets the class token see

    def pack(self) -> Encoded:
        """Visible tokens first, and as many of them as the fullest view has (at least 1): (B, L, D)."""
        longest = max(1, int(self.visible_BN.sum(dim=1).max()))
        order_BL = self.visible_BN.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
        tokens_BLD = self.tokens_BND.gather(1, order_BL[..., None].expand(-1, -1, self.tokens_BND.shape[-1]))
        return Encoded(self.cls_BD, tokens_BLD, self.visible_BN.gather(1, order_BL))

    @classmethod
    def concat(cls, parts: Sequence[Encoded]) -> Encoded:
        """One batch of several, padded to the longest."""
        longest = max(part.tokens_BND.shape[1] for part in parts)
        missing = [longest - part.tokens_BND.shape[1] for part in parts]
        tokens = [F.pad(part.tokens_BND, (0, 0, 0, n)) for part, n in zip(parts, missing, strict=True)]
        visible = [F.pad(part.visible_BN, (0, n)) for part, n in zip(parts, missing, strict=True)]
        return cls(torch.cat([part.cls_BD for part in parts]), torch.cat(tokens), torch.cat(visible))


def inputs(model: Backbone, views: Sequence[tuple[Image, Image]]) -> tuple[Tensor, Tensor]:
    """Views and their masks as `model.encode` takes them."""
    return tensors(views, model.mean, model.std, model.color_normalization)


class Tail(Protocol):
    """The trainable end of a backbone: the last mask-guided block."""

    dim: int  # width of the class token it returns

    def __call__(self, cls_BD: Tensor, tokens_BLD: Tensor, key_mask_BL: Tensor) -> Tensor:
        """Class tokens (B, dim), from the visible tokens alone; padding has key mask False."""

    def calibrate(self, cls_ND: Tensor) -> None:
        """Takes what it wants to know of the distribution of class tokens (training set, no labels)."""


class Backbone(Protocol):
    """A frozen trunk."""

    name: str
    device: str
    dim: int  # width of its tokens
    widths: tuple[int, ...]  # the scales that a token starts with, in turn; frozen features weigh them alike
    view_size: int  # side of the views it is fed, pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color_normalization: ColorNormalization  # what becomes of the color_normalization of a view before it sees them
    multiple: int  # the sides of an image for `patch_features` are multiples of it, pixels
    detector_layers: tuple[int, ...]  # what detectors look at, the finest first
    stride: int  # pixels of the image a patch of the first of them, each way
    lr: float  # learning rate that suits its tail
    projector_width: int  # hidden width of the projector that suits the width of its class token

    def encode(self, images_BCHW: Tensor, masks_BHW: Tensor) -> Encoded:
        """Everything before the trainable block, for normalised images and masks in 0..1; no gradient."""

    def make_tail(self) -> nn.Module:
        """A fresh trainable end that fulfils `Tail`."""

    def patch_features(self, images_BCHW: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        """Feature maps (B, C, rows, cols) of the given layers, for detectors; no gradient."""

    def digest(self) -> str:
        """sha256 over the frozen weights."""
