"""PatchCore: its parts against plain formulas, and a planted defect is where the map is highest."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ancd_ray.backbones.lite import Lite
from ancd_ray.data.images import BadImage
from ancd_ray.detectors import memory_bank
from ancd_ray.detectors.memory_bank import choose_coreset, compile_nearest, nearest_distance
from ancd_ray.detectors.patch_features import prepare
from ancd_ray.detectors.patch_maps import apply_gamma
from ancd_ray.detectors.patchcore import PatchCore
from tests.detectors.fitting import compute_maps, fit


def _points(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))


def test_nearest_distance_is_the_smallest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, memory = _points(50), _points(20, 1)
    expected = torch.cdist(queries, memory).amin(dim=1)
    for measure in (partial(nearest_distance, memory_MD=memory), compile_nearest(memory)):
        torch.testing.assert_close(measure(queries), expected, atol=1e-4, rtol=1e-4)
        monkeypatch.setattr(memory_bank, "_BLOCK", 7)
        torch.testing.assert_close(measure(queries), expected, atol=1e-4, rtol=1e-4)
        monkeypatch.undo()
    assert float(nearest_distance(memory, memory).max()) < 1e-2


def test_coreset_is_greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters far apart are all met before any is met twice, and rounds choose what single steps do."""
    centres = torch.eye(32)[:10] * 100
    candidates = (centres[:, None] + 0.01 * _points(10 * 5).reshape(10, 5, 32)).reshape(50, 32)
    chosen = choose_coreset(candidates, 10)
    assert sorted((chosen // 5).tolist()) == list(range(10))
    assert choose_coreset(_points(5), 12).tolist() == [0, 1, 2, 3, 4]
    points = _points(300)
    monkeypatch.setattr(memory_bank, "_PROJECTION", 32)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.eye(32) * 32**0.5)
    monkeypatch.setattr(memory_bank, "_ROUND", 16)
    distances = torch.cdist(points, points)
    expected = [int((points - points.mean(dim=0)).square().sum(dim=1).argmin())]
    while len(expected) < 120:
        expected.append(int(distances[:, expected].amin(dim=1).argmax()))
    assert choose_coreset(points, 120).tolist() == expected


def test_coreset_of_equal_candidates_has_no_one_twice() -> None:
    assert len(set(choose_coreset(torch.ones(40, 32), 12).tolist())) == 12


@pytest.mark.parametrize(
    ("shape", "expected"), [((100, 200), (96, 192)), ((200, 100), (192, 96)), ((9, 900), (32, 192))]
)
def test_prepare_keeps_the_aspect(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    prepared = prepare(rgb, 192, True, Lite())
    assert prepared.shape == (*expected, 3)
    assert prepared.mean() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("brightness", [True, False, (0.4, 1.3)])
def test_prepare_normalizes_in_one_step_what_two_do(brightness: bool | tuple[float, float]) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    expected = (rgb / 255 - Lite.mean) / Lite.std
    mean, contrast = brightness if isinstance(brightness, tuple) else (expected.mean(), expected.std())
    if brightness:
        expected = (expected - mean) / contrast
    np.testing.assert_allclose(prepare(rgb, 96, brightness, Lite()), expected, atol=1e-5)


def _write(folder: Path, name: str, image: NDArray[Any]) -> dict[str, str]:
    cv2.imwrite(str(folder / name), image)
    return {"uri": str(folder / name), "role": "query", "image_id": hashlib.sha256(name.encode()).hexdigest()[:20]}


@pytest.mark.parametrize("image_size", [192, (192, 256)])
def test_a_planted_defect_is_found(tmp_path: Path, image_size: int | tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)

    def surface() -> NDArray[Any]:
        return np.asarray(cv2.GaussianBlur(rng.integers(60, 200, (192, 192, 3)).astype(np.uint8), (0, 0), 2))

    config = PatchCore(name="patchcore", image_size=image_size, coreset=300)
    normals = [_write(tmp_path, f"n{i}.png", surface()) for i in range(6)]
    detector = fit(config, normals)
    spoiled = surface()
    cv2.circle(spoiled, (130, 60), 18, (255, 255, 255), -1)
    clean, found, broken = detector.score(
        [
            _write(tmp_path, "c.png", surface()),
            _write(tmp_path, "d.png", spoiled),
            {**normals[0], "uri": str(tmp_path / "gone.png")},
        ]
    )
    assert isinstance(broken, BadImage)
    assert not isinstance(clean, BadImage)
    assert not isinstance(found, BadImage)
    assert found.shape == (192, 192)
    assert found.max() > 1.2 * clean.max()
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert np.hypot(x - 130, y - 60) < 24


def test_a_normal_image_is_scored_without_its_own_patches(tmp_path: Path) -> None:
    """In the full bank its distance is almost 0; without its patches it is that of an unseen normal image."""
    rng = np.random.default_rng(0)
    images = [
        _write(tmp_path, f"{i}.png", cv2.GaussianBlur(rng.integers(60, 200, (128, 128, 3)).astype(np.uint8), (0, 0), 2))
        for i in range(10)
    ]
    config = PatchCore(name="patchcore", image_size=128, coreset=100_000)
    normals, unseen = images[:6], images[6:]
    scorer = fit(config, normals)

    def score(rows: list[dict[str, str]]) -> float:
        return float(np.mean([found.max() for found in compute_maps(scorer, rows)]))

    assert score([{**row, "image_id": "f" * 20} for row in normals]) < 0.2 * score(unseen)
    assert score(normals) == pytest.approx(score(unseen), rel=0.1)


def test_contrast_keeps_the_score_and_the_order() -> None:
    values = np.random.default_rng(0).random((8, 9), np.float32)
    sharper = apply_gamma(values, 2.0)
    assert sharper.max() == pytest.approx(values.max())
    assert (sharper.ravel().argsort() == values.ravel().argsort()).all()
    np.testing.assert_allclose(sharper, values**2 / values.max(), rtol=1e-6)
    np.testing.assert_allclose(apply_gamma(values, 1.0), values, rtol=1e-6)
    assert not apply_gamma(np.zeros((2, 2), np.float32), 2.0).any()
