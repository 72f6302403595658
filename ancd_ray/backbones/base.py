"""What every backbone offers; detectors and training know nothing else of it.

Shape suffixes: B images, H height, W width, N patch tokens, L visible tokens (padded), D token width.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn


class Encoded(NamedTuple):
    """Output of the frozen trunk: all that training needs of a view."""

    cls_BD: Tensor
    tokens_BND: Tensor
    visible_BN: Tensor  # bool: patch tokens that the mask lets the class token see


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
    view_size: int  # side of the views it is fed, pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
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
