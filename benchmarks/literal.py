"""Slow, literal implementations of the text of the paper, with which the fast ones are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn

from ancd_ray.method.crops import CropParams, crop, mask_to_image_size, region_boxes
from ancd_ray.method.mebin import stable_level, thresholds

Bytes = NDArray[np.uint8]


# --- MEBin (Section III-B)


def region_counts(map_HW: Bytes, levels: NDArray[Any], erosion_px: int = 6) -> NDArray[np.int64]:
    """Count regions by threshold, erosion and labelling at every level."""
    element = np.ones((erosion_px, erosion_px), np.uint8)
    counts = []
    for level in levels.tolist():
        mask = cv2.threshold(map_HW, level, 255, cv2.THRESH_BINARY)[1]
        counts.append(cv2.connectedComponents(cv2.erode(mask, element), connectivity=8)[0] - 1)
    return np.array(counts)


def binarize(map_HW: Bytes, lo: float, hi: float) -> tuple[Bytes, int]:
    """Compute the mask of a map and its number of regions."""
    levels = thresholds(lo, hi, is_integer=True)
    counts = region_counts(map_HW, levels)
    level = stable_level(counts, 4, "longest_run")
    if level is None:
        return np.zeros_like(map_HW), 0
    mask = cv2.threshold(map_HW, levels[level].item(), 255, cv2.THRESH_BINARY)[1]
    return np.asarray(cv2.erode(mask, np.ones((6, 6), np.uint8)), np.uint8), int(counts[level])


def cut_with_files(image_file: Path, map_file: Path, lo: float, hi: float, folder: Path) -> int:
    """Binarize a map and cut the image, with mask, sub-images and their masks as PNG files; returns their number."""
    mask, n_regions = binarize(cv2.imread(str(map_file), cv2.IMREAD_GRAYSCALE), lo, hi)
    mask_file = folder / f"{map_file.stem}-mask.png"
    Image.fromarray(mask).save(mask_file)
    image = np.asarray(Image.open(image_file).convert("RGB"))
    mask = mask_to_image_size(np.asarray(Image.open(mask_file)), *image.shape[:2])
    boxes = region_boxes(mask, n_regions, CropParams(relative_to="long"))
    for number, box in enumerate(boxes):
        Image.fromarray(crop(image, box)).save(folder / f"{map_file.stem}-{number}.png")
        Image.fromarray(crop(mask, box)).save(folder / f"{map_file.stem}-{number}-mask.png")
    return len(boxes)


# --- views with the operations of PIL


def draw_pil_view(image: Image.Image, mask: Image.Image, rng: np.random.Generator, size: int = 224) -> tuple[Any, Any]:
    """Draw a view by the same operations in the same ranges as `method.views.random_view`."""
    side = round(size * 8 / 7)
    image, mask = image.resize((side, side), Image.Resampling.BICUBIC), mask.resize((side, side))
    top, left = (int(v) for v in rng.integers(0, side - size + 1, 2))
    box = (left, top, left + size, top + size)
    image, mask = image.crop(box), mask.crop(box)
    if rng.random() < 0.5:
        image, mask = ImageOps.flip(image), ImageOps.flip(mask)
    if rng.random() < 0.5:
        image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
    turn = 90 * int(rng.integers(4))
    image, mask = image.rotate(turn), mask.rotate(turn)
    for operation in rng.permutation(3):
        kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[operation]
        image = kind(image).enhance(rng.uniform(0.6, (1.4, 1.4, 1.8)[operation]))
    image = ImageEnhance.Sharpness(image).enhance(rng.uniform(0.2, 2.0))
    image = _blur(image, 2 * int(rng.integers(4, 17)) + 1, rng.uniform(0.1, 2.0))
    return ImageOps.posterize(image, int(rng.integers(5, 9))), mask


def _blur(image: Image.Image, kernel: int, sigma: float) -> Image.Image:
    """Blur a PIL image by torchvision: to a tensor, a two-dimensional convolution, and back."""
    from torchvision.transforms import functional

    return functional.gaussian_blur(image, [kernel, kernel], [sigma, sigma])


# --- MGViT (Section III-C1, eq. 1-3) around the layers of a timm ViT


def class_tokens(model: Any, images: Tensor, masks: Tensor, mask_layers: int = 9) -> Tensor:
    """Compute class tokens (B, D) after all blocks, with full attention matrices in every block."""
    patches = model.patch_embed(images)
    rows, cols = patches.shape[1:3]
    x = model._pos_embed(patches)
    visible = F.adaptive_avg_pool2d(masks[:, None], (rows, cols)).flatten(1) >= 0.5
    visible = F.pad(visible, (1, 0), value=True)
    for index, block in enumerate(model.blocks):
        masked = visible if index >= len(model.blocks) - mask_layers else None
        x = x + _attention(block.attn, block.norm1(x), masked)
        x = x + block.mlp(block.norm2(x))
    return model.norm(x)[:, 0]


def _attention(attn: Any, x: Tensor, visible: Tensor | None) -> Tensor:
    q, k, v = attn.qkv(x).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-2, -1) * attn.scale
    if visible is not None:
        hidden = torch.zeros_like(logits[:, 0], dtype=torch.bool)
        hidden[:, 0] = ~visible
        logits = logits.masked_fill(hidden[:, None], -torch.inf)
    return attn.proj((logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


def unfreeze_last_block(model: nn.Module) -> list[nn.Parameter]:
    """Freeze all but the last block, and return its parameters."""
    model.requires_grad_(False)
    return list(model.blocks[-1].requires_grad_(True).parameters())
