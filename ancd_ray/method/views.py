"""Augmented views of a sub-image and its mask (Section IV-A2): crops and colors of BYOL, rotations of RandAugment.

A view is transformed in this order: resize to 8/7 of its size (256 for 224), random crop, flips, rotation by a multiple
of 90°, color jitter, sharpness, Gaussian blur, posterize. The mask gets the same geometric transforms and no others.

The paper names the operations, the released program their ranges. What neither defines follows torchvision: each flip
with probability 0.5, everything else always, uniform factors, the three color operations in random order, the sigma of
the blur uniform in 0.1..2 (BYOL's range).

All operations run on uint8 with OpenCV and look-up tables: a view of 224 px takes about 2.5 ms on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ColorNormalization = Literal["kept", "centred", "standardised"]
_CONTRAST = 0.8  # std of the luma within a natural image, in units of the std of the data set, as in pretraining
_FLAT = 0.05  # minimum standard deviation, so that the noise of a uniform view is not amplified

Image = NDArray[np.uint8]
"""RGB pixels (H, W, 3), or a mask (H, W) of 0 and 255."""


def random_view(image: Image, mask: Image, rng: np.random.Generator, size: int = 224) -> tuple[Image, Image]:
    """Draw one augmented view of a square sub-image.

    Parameters
    ----------
    image
        Square RGB image of any side.
    mask
        Its mask, 0 or 255, of the same side.
    rng
        The only source of randomness; the same state gives the same view.
    size
        Side of the view in pixels.

    Returns
    -------
    tuple of ndarray
        Image (size, size, 3) and mask (size, size).
    """
    image, mask = _random_geometry(*_resize(image, mask, size), rng, size)
    for operation in rng.permutation(3):
        if operation == 0:
            image = adjust_brightness(image, rng.uniform(0.6, 1.4))
        elif operation == 1:
            image = adjust_contrast(image, rng.uniform(0.6, 1.4))
        else:
            image = adjust_saturation(image, rng.uniform(0.6, 1.8))
    image = adjust_sharpness(image, rng.uniform(0.2, 2.0))
    kernel = 2 * int(rng.integers(4, 17)) + 1  # odd, 9..33
    image = cast(Image, cv2.GaussianBlur(image, (kernel, kernel), rng.uniform(0.1, 2.0)))
    return posterize(image, int(rng.integers(5, 9))), mask


def clean_view(image: Image, mask: Image, size: int = 224) -> tuple[Image, Image]:
    """Compute the view used for inference: the center crop of the resized sub-image."""
    image, mask = _resize(image, mask, size)
    start = (len(image) - size) // 2
    window = slice(start, start + size)
    return np.ascontiguousarray(image[window, window]), np.ascontiguousarray(mask[window, window])


def normalize(images_BHWC: Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalize RGB images: (x / 255 − mean) / std per channel.

    Parameters
    ----------
    images_BHWC
        RGB images, uint8.
    mean, std
        Mean and standard deviation of each channel, for values in 0..1.

    Returns
    -------
    Tensor
        Images (B, 3, H, W), float32, channels last in memory.
    """
    images_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2).float()
    mean_C11, std_C11 = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std))
    return images_BCHW.sub_(255 * mean_C11).div_(255 * std_C11)


def tensors(
    views: Sequence[tuple[Image, Image]],
    mean: Sequence[float],
    std: Sequence[float],
    color_normalization: ColorNormalization = "kept",
) -> tuple[Tensor, Tensor]:
    """Convert views of one size to the input of a backbone.

    Parameters
    ----------
    views
        Images (H, W, 3) and masks (H, W) of 0 and 255.
    mean, std
        See `normalize`.
    color_normalization
        See `normalize_color`.

    Returns
    -------
    tuple of Tensor
        Normalized images (B, 3, H, W), and masks (B, H, W) in 0..1.
    """
    images_BCHW = normalize_color(normalize(np.stack([image for image, _ in views]), mean, std), color_normalization)
    return images_BCHW, torch.from_numpy(np.stack([mask for _, mask in views])).float() / 255


def normalize_color(images_BCHW: Tensor, mode: ColorNormalization) -> Tensor:
    """Remove the color of each view, so that features depend on differences within a sub-image.

    Without it, they also depend on the color of the part and on the illumination.

    Parameters
    ----------
    images_BCHW
        Normalized images.
    mode
        `kept` returns the images unchanged, `centred` subtracts the mean color of each view, and `standardised` also
        scales each view to the same contrast.
    """
    if mode == "kept":
        return images_BCHW
    centered_BCHW = images_BCHW - images_BCHW.mean(dim=(2, 3), keepdim=True)
    if mode == "centred":
        return centered_BCHW
    deviation_B111 = centered_BCHW.mean(dim=1, keepdim=True).square().mean(dim=(2, 3), keepdim=True).sqrt()
    return _CONTRAST * centered_BCHW / deviation_B111.clamp(min=_FLAT)


def adjust_brightness(image: Image, factor: float) -> Image:
    """Multiply the image by a factor: 0 is black, 1 the image."""
    return _blend_with_level(image, 0.0, factor)


def adjust_contrast(image: Image, factor: float) -> Image:
    """Blend with the mean luma: 0 is uniform gray, 1 the image, 2 twice the contrast."""
    red, green, blue, _ = cv2.mean(image)
    return _blend_with_level(image, 0.299 * red + 0.587 * green + 0.114 * blue, factor)


def adjust_saturation(image: Image, factor: float) -> Image:
    """Blend with the luma of each pixel: 0 is gray, 1 the image."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cast(Image, cv2.addWeighted(image, factor, gray, 1 - factor, 0))


def adjust_sharpness(image: Image, factor: float) -> Image:
    """Blend with a 3×3 smoothing (center weight 5/13, others 1/13): 0 is smooth, 1 the image, 2 sharpened.

    As in PIL and torchvision the outermost pixels are unchanged.
    """
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    smooth = cv2.filter2D(image, -1, kernel / 13)
    inner = slice(1, -1)
    sharpened: Image = image.copy()
    sharpened[inner, inner] = cv2.addWeighted(image, factor, smooth, 1 - factor, 0)[inner, inner]
    return sharpened


def posterize(image: Image, bits: int) -> Image:
    """Keep the upper `bits` of the eight bits of every value."""
    return cast(Image, image & np.uint8(256 - (1 << (8 - bits))))


def _blend_with_level(image: Image, level: float, factor: float) -> Image:
    """Compute factor · image + (1 − factor) · level with a look-up table, faster than per-pixel arithmetic."""
    values = factor * np.arange(256) + (1 - factor) * level
    return cast(Image, cv2.LUT(image, np.rint(values).clip(0, 255).astype(np.uint8)))


def _resize(image: Image, mask: Image, size: int) -> tuple[Image, Image]:
    """Resize image and mask to 8/7 of the side of a view, before cropping; the mask stays 0 or 255."""
    side = round(size * 8 / 7)
    if len(image) == side:
        return image, mask
    interpolation = cv2.INTER_AREA if len(image) > side else cv2.INTER_LINEAR
    resized = cv2.resize(image, (side, side), interpolation=interpolation)
    # INTER_NEAREST_EXACT samples at pixel centers, like the interpolation of the image.
    return cast(Image, resized), cast(Image, cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST_EXACT))


def _random_geometry(image: Image, mask: Image, rng: np.random.Generator, size: int) -> tuple[Image, Image]:
    """Apply the same random crop, flips and rotation to both.

    All eight symmetries of the square are equally likely.
    """
    top, left = rng.integers(0, len(image) - size + 1, 2)
    flip_rows, flip_cols = rng.random(2) < 0.5
    turns = int(rng.integers(4))

    def place(plane: Image) -> Image:
        plane = plane[top : top + size, left : left + size]
        plane = plane[:: -1 if flip_rows else 1, :: -1 if flip_cols else 1]
        return np.ascontiguousarray(np.rot90(plane, turns))

    return place(image), place(mask)
