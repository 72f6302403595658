"""Synthetic products with known defects, drawn on the CPU, for first runs and tests.

`tile` is brushed metal with four kinds of defect, exact masks and normal images; `base` is another surface (leather)
with other kinds, the labeled base set of class discovery. Every image has its own random generator with a seed derived
from seed, product, class and index: the same seed gives the same bytes, and a larger set contains the smaller one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np

from ancd_ray.data.demo.defects import BASE_KINDS, TILE_KINDS, ByteArray, FloatArray

MARKER = ".ancd-ray-demo"  # marks a folder as generated, so that no other folder is overwritten
GOOD = "good"
MIN_SIZE = 64  # pixels; a smaller image cannot contain two regions


@dataclass(frozen=True)
class DemoSummary:
    """What `generate` wrote.

    Parameters
    ----------
    folder
        The folder.
    test
        Number of images of each test class of `tile`.
    normals
        Number of normal images of `tile`.
    base
        Number of images of each class of `base`.
    """

    folder: Path
    test: Mapping[str, int]
    normals: int
    base: Mapping[str, int]


@dataclass(frozen=True)
class Sample:
    """One synthetic image.

    Parameters
    ----------
    image
        Image with its defects, (size, size, 3), BGR.
    clean
        The same image without defects.
    mask
        Mask (size, size), 0 or 255.
    """

    image: ByteArray
    clean: ByteArray
    mask: ByteArray


def generate(
    folder: Path, *, images: int = 120, normals: int = 60, base: int = 60, seed: int = 0, size: int = 256
) -> DemoSummary:
    """Write the products `tile` and `base` in the layout of MVTec AD.

    An earlier set of this generator in the folder is replaced.

    Parameters
    ----------
    folder
        Output folder; new, empty, or with an earlier set.
    images
        Number of test images of `tile`, spread evenly over its five classes (one of them `good`).
    normals
        Number of training images of `tile`.
    base
        Number of images of `base`, spread evenly over its three classes.
    seed
        Seed of all images.
    size
        Side of an image in pixels.

    Raises
    ------
    ValueError
        A number is out of range, or the folder contains other files.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size {size} is too small: at least {MIN_SIZE} pixels")
    if min(images, normals, base, seed) < 0:
        raise ValueError("images, normals, base and seed must not be negative")
    _claim(folder)
    tile_counts = _split_evenly(images, (GOOD, *TILE_KINDS))
    base_counts = _split_evenly(base, tuple(BASE_KINDS))
    for product, split, counts in (
        ("tile", "train", {GOOD: normals}),
        ("tile", "test", tile_counts),
        ("base", "test", base_counts),
    ):
        for kind, count in counts.items():
            samples = (draw(product, split, kind, index, seed=seed, size=size) for index in range(count))
            _write(folder / product, split, kind, samples)
    return DemoSummary(folder, tile_counts, normals, base_counts)


def draw(product: str, split: str, kind: str, index: int, *, seed: int = 0, size: int = 256) -> Sample:
    """Draw one image of a product (`tile` or `base`); `kind` is `good` or one of its defects."""
    rng = np.random.default_rng([seed, crc32(f"{product}/{split}/{kind}".encode()), index])
    surface = (_brushed_metal if product == "tile" else _leather)(rng, size)
    clean = _to_bytes(surface)
    mask = np.zeros((size, size), np.uint8)
    if kind == GOOD:
        return Sample(clean, clean, mask)
    painter, tint = {**TILE_KINDS, **BASE_KINDS}[kind]
    for center, extent in _sample_places(rng, size):
        shade, support = painter(rng, size, center, extent)
        # shading near zero would leave pixels of the mask unchanged
        shade = np.where(np.abs(shade) < 1, 1, shade)
        surface += np.where(support, shade, 0)[..., None] * np.asarray(tint, np.float32)
        mask[support] = 255
    return Sample(_to_bytes(surface), clean, mask)


def _claim(folder: Path) -> None:
    """Create the folder or remove an earlier set from it, also one of an interrupted run."""
    marker = folder / MARKER
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not marker.is_file():
        raise ValueError(f"{folder} is not empty and was not made by this generator: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("Made by the demo generator of ancd-ray, which may replace the PNG files in tile/ and base/.\n")
    for product in ("tile", "base"):
        for stale in (folder / product).rglob("*.png"):
            stale.unlink()


def _split_evenly(total: int, classes: tuple[str, ...]) -> dict[str, int]:
    return {name: total // len(classes) + (i < total % len(classes)) for i, name in enumerate(classes)}


def _write(folder: Path, split: str, kind: str, samples: Iterable[Sample]) -> None:
    images, masks = folder / split / kind, folder / "ground_truth" / kind
    images.mkdir(parents=True, exist_ok=True)
    if kind != GOOD:
        masks.mkdir(parents=True, exist_ok=True)
    for index, sample in enumerate(samples):
        _save(images / f"{index:03d}.png", sample.image)
        if kind != GOOD:
            _save(masks / f"{index:03d}_mask.png", sample.mask)


def _save(path: Path, image: ByteArray) -> None:
    _, png = cv2.imencode(".png", image)
    path.write_bytes(png.tobytes())  # not cv2.imwrite, which fails silently and cannot write every Unicode path


def _to_bytes(surface: FloatArray) -> ByteArray:
    return np.clip(np.rint(surface), 0, 255).astype(np.uint8)


def _sample_places(rng: np.random.Generator, size: int) -> list[tuple[FloatArray, float]]:
    """Sample center (x, y) and half extent of each region in pixels.

    One region per image, or, with probability 1/4, two smaller ones, in the left and the right half.
    """
    if rng.random() < 0.25:
        centers, extent = [rng.uniform((x - 0.06, 0.25), (x + 0.06, 0.75)) for x in (0.26, 0.74)], (0.09, 0.15)
    else:
        centers, extent = [rng.uniform(0.3, 0.7, 2)], (0.12, 0.24)
    return [(center.astype(np.float32) * size, rng.uniform(*extent) * size) for center in centers]


# --- surfaces: (size, size, 3) float32 in gray levels


def _noise(rng: np.random.Generator, size: int, sigma_x: float, sigma_y: float) -> FloatArray:
    """Draw Gaussian noise smoothed to the given grain size in pixels, with zero mean and unit deviation."""
    field = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), sigma_x, sigmaY=sigma_y)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def _illumination(rng: np.random.Generator, size: int, levels: float) -> FloatArray:
    """Draw a linear illumination gradient with a random direction around the upper left."""
    angle = np.pi / 4 + rng.normal(0, 0.2)
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    return np.asarray(-levels * rng.uniform(0.7, 1.3) * (np.cos(angle) * x + np.sin(angle) * y), np.float32)


def _brushed_metal(rng: np.random.Generator, size: int) -> FloatArray:
    grain = 7 * _noise(rng, size, size / 8, 0.6) + 3 * _noise(rng, size, size / 32, 0.5)
    gray = 148 + rng.normal(0, 4) + grain + 2.5 * _noise(rng, size, 0.5, 0.5) + _illumination(rng, size, 13)
    return np.asarray(gray[..., None] * np.array([1.02, 1.0, 0.97]), np.float32)


def _leather(rng: np.random.Generator, size: int) -> FloatArray:
    """Draw leather: pebbles are the cells around random seeds, lit from the upper left."""
    seeds = np.full((size, size), 255, np.uint8)
    n = size * size // 60
    seeds[rng.integers(0, size, n), rng.integers(0, size, n)] = 0
    height = cv2.GaussianBlur(-cv2.distanceTransform(seeds, cv2.DIST_L2, 5), (0, 0), 1.0)
    relief = cv2.Sobel(height, cv2.CV_32F, 1, 0) + cv2.Sobel(height, cv2.CV_32F, 0, 1)
    gray = 105 + rng.normal(0, 3) - 2.2 * relief + 4 * _noise(rng, size, size / 20, size / 20)
    gray += _illumination(rng, size, 9)
    return np.asarray(gray[..., None] * np.array([0.55, 0.8, 1.15]), np.float32)
