"""Augmented views: geometry, colors and randomness."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as tv

from ancd_ray.method import views

Image = NDArray[np.uint8]


def _texture(side: int = 256) -> Image:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (5, 5), 1), np.uint8)


def _blob(side: int = 256) -> Image:
    """Return a mask without symmetry, so that all its placements differ."""
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : 7 * side // 8] = 255
    mask[side // 2 : 3 * side // 4, side // 4 : 3 * side // 8] = 255
    return mask


@pytest.mark.parametrize("side", [64, 256, 300])
def test_a_view_has_the_asked_size_and_a_binary_mask(side: int) -> None:
    image, mask = views.random_view(_texture(side), _blob(side), np.random.default_rng(1), size=112)
    assert (image.shape, image.dtype) == ((112, 112, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((112, 112), np.uint8)
    assert set(np.unique(mask)) == {0, 255}
    assert image.flags.c_contiguous
    assert mask.flags.c_contiguous


def test_views_depend_only_on_the_generator() -> None:
    image, mask = _texture(), _blob()
    before = image.copy()
    one, again, other = (views.random_view(image, mask, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert np.array_equal(image, before)


def test_image_and_mask_get_the_same_geometry() -> None:
    """An image that is bright only inside its mask stays so under color changes and blur."""
    mask = _blob()
    image = np.where(mask[..., None] > 0, np.uint8(200), np.uint8(60)).repeat(3, axis=2)
    for seed in range(24):
        view, view_mask = views.random_view(image, mask, np.random.default_rng(seed))
        away_from_edges = cv2.GaussianBlur(view_mask, (33, 33), 8)
        inside, outside = view[away_from_edges == 255], view[away_from_edges == 0]
        assert len(inside) > 100
        assert int(inside.min()) > int(outside.max())


def test_all_placements_of_the_square_occur() -> None:
    image, mask = _texture(224), _blob(224)
    seen = set()
    for seed in range(100):  # if the crop is as large as the image, only flips and rotations remain
        _, placed = views._random_geometry(image, mask, np.random.default_rng(seed), 224)
        seen.add(placed.tobytes())
    turned = [np.rot90(mask, k) for k in range(4)]
    assert seen == {np.ascontiguousarray(m).tobytes() for m in [*turned, *(m[:, ::-1] for m in turned)]}


def test_a_clean_view_is_the_center_crop() -> None:
    image, mask = _texture(), _blob()
    view, view_mask = views.clean_view(image, mask, 224)
    assert np.array_equal(view, image[16:240, 16:240])
    assert np.array_equal(view_mask, mask[16:240, 16:240])


@pytest.mark.parametrize(
    ("ours", "theirs", "factors", "tolerance"),
    [
        (views.adjust_brightness, tv.adjust_brightness, (0.6, 1.0, 1.4), 1),
        (views.adjust_contrast, tv.adjust_contrast, (0.6, 1.0, 1.4), 1),
        (views.adjust_saturation, tv.adjust_saturation, (0.6, 1.0, 1.8), 2),
        (views.adjust_sharpness, tv.adjust_sharpness, (0.2, 1.0, 2.0), 2),
        (views.posterize, tv.posterize, (5, 6, 7, 8), 0),
    ],
)
def test_color_operations_agree_with_torchvision(
    ours: Callable[[Image, float], Image],
    theirs: Callable[[torch.Tensor, float], torch.Tensor],
    factors: tuple[float, ...],
    tolerance: int,
) -> None:
    image = _texture(64)
    for factor in factors:
        expected = theirs(torch.from_numpy(image).permute(2, 0, 1), factor).permute(1, 2, 0).numpy()
        difference = np.abs(ours(image, factor).astype(int) - expected.astype(int))
        assert difference.max() <= tolerance


def test_normalize() -> None:
    images = np.stack([_texture(8), _texture(8)[::-1]])
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = views.normalize(images, mean, std)
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_color_normalization_removes_color_and_contrast() -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    dim = (_texture(64) // 4).astype(np.uint8)  # values 0..63: room for a shift and for twice the contrast
    mask = _blob(64)
    seen = [(dim, mask), (dim + np.array([100, 20, 60], np.uint8), mask), (2 * dim, mask)]
    kept, centered, standardized = (
        views.tensors(seen, mean, std, mode)[0] for mode in ("kept", "centred", "standardised")
    )
    assert not torch.allclose(kept[0], kept[1], atol=0.1)
    torch.testing.assert_close(centered[0], centered[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(2 * centered[0], centered[2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(standardized[0], standardized[2], atol=1e-5, rtol=1e-4)
    assert float(standardized[0].mean(dim=0).std()) == pytest.approx(0.8, rel=1e-3)
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert not views.tensors([(flat, mask)], mean, std, "standardised")[0].abs().max() > 1e-4
