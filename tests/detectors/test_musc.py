"""MuSc: against the literal form over all pairs, archives of one image, and defects that some references have."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ancd_ray.backbones.lite import Lite
from ancd_ray.data.images import BadImage
from ancd_ray.detectors import mutual_scoring
from ancd_ray.detectors.base import choose_references
from ancd_ray.detectors.memory_bank import MemoryBank
from ancd_ray.detectors.musc import MuSc
from ancd_ray.detectors.mutual_scoring import drop_anomalous
from ancd_ray.detectors.patch_features import ImageFeatures, compute_features
from ancd_ray.detectors.patch_maps import make_map
from tests.detectors.fitting import compute_maps, fit

SIZE = 128


def _make_id(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()[:20]


def _write(folder: Path, i: int, defect: bool = False) -> dict[str, str]:
    rng = np.random.default_rng(i)
    image = cv2.GaussianBlur(rng.integers(60, 200, (SIZE, SIZE, 3)).astype(np.uint8), (0, 0), 2)
    if defect:
        cv2.circle(image, (88, 40), 12, (255, 255, 255), -1)
    path = folder / f"{i}.png"
    cv2.imwrite(str(path), image)
    return {"uri": str(path), "role": "query", "image_id": _make_id(i)}


def _score_all_pairs(config: MuSc, images: list[dict[str, str]]) -> list[NDArray[Any]]:
    """The formula as it stands: a patch against each other image of the archive, by all of their patches."""
    features = [found for _, found in compute_features(Lite(), config, images, config.neighborhoods)]
    found = [next(iter(each.tiles))[1] for each in features if not isinstance(each, BadImage)]
    maps = []
    for i, own in enumerate(found):
        of_sides = []
        for side, grid in enumerate(own):
            queries = grid.features_RCD.flatten(0, 1).double()
            others = [found[j][side].features_RCD.flatten(0, 1).half().double() for j in range(len(found)) if j != i]
            nearest = torch.stack([torch.cdist(queries, other).amin(dim=1) for other in others], dim=1)
            k = max(1, math.ceil(config.nearest * len(others)))
            of_sides.append(nearest.sort(dim=1).values[:, :k].mean(dim=1).reshape(grid.features_RCD.shape[:2]))
        maps.append(_make_map(features[i], torch.stack(of_sides).mean(dim=0).float(), config))
    return maps


def _make_config(**keys: Any) -> MuSc:
    return MuSc(name="musc", image_size=SIZE, **keys)


def _make_map(features: ImageFeatures | BadImage, score_RC: torch.Tensor, config: MuSc) -> NDArray[Any]:
    assert not isinstance(features, BadImage)
    made = make_map(features, lambda _: [score_RC], config, Lite().stride)
    assert not isinstance(made, BadImage)
    return made


def test_all_images_as_references_are_the_form_over_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [_write(tmp_path, i, defect=i == 3) for i in range(7)]
    config = _make_config(neighborhoods=(1, 3, 5), nearest=0.3, drop=0.0)
    monkeypatch.setattr(mutual_scoring, "_COLUMNS", 600)  # two references of 256 patches
    for found, expected in zip(
        compute_maps(fit(config, images), images), _score_all_pairs(config, images), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_a_defect_is_found_without_any_normal_image(tmp_path: Path) -> None:
    images = [_write(tmp_path, i, defect=i == 5) for i in range(8)]
    maps = compute_maps(fit(_make_config(), images), images)
    scores = [float(np.max(found)) for found in maps]
    assert int(np.argmax(scores)) == 5
    y, x = np.unravel_index(np.argmax(maps[5]), (SIZE, SIZE))
    assert np.hypot(x - 88, y - 40) < 16


def test_an_image_is_scored_the_same_in_any_company(tmp_path: Path) -> None:
    images = [_write(tmp_path, i) for i in range(6)]
    scorer = fit(_make_config(), images[:4])
    together, alone = compute_maps(scorer, images), [compute_maps(scorer, [image])[0] for image in images]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_images_have_maps(tmp_path: Path, n: int) -> None:
    """The number of nearest references is at least one, and an image without any is compared with itself."""
    images = [_write(tmp_path, i, defect=i == 0) for i in range(n)]
    maps = compute_maps(fit(_make_config(), images), images)
    for found in maps:
        assert np.isfinite(found).all()
    if n > 1:
        y, x = np.unravel_index(np.argmax(maps[0]), (SIZE, SIZE))
        assert np.hypot(x - 88, y - 40) < 24


def test_constant_images_have_no_anomaly(tmp_path: Path) -> None:
    images = []
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((64, 64, 3), 80, np.uint8))
        images.append({"uri": str(tmp_path / f"{i}.png"), "role": "query", "image_id": _make_id(i)})
    for found in compute_maps(fit(MuSc(name="musc", image_size=64), images), images):
        assert np.isfinite(found).all()
        assert np.ptp(np.asarray(found)) < 1e-2


def test_the_most_anomalous_patches_of_references_are_left_out(tmp_path: Path) -> None:
    """A defect that a third of the references have is near to its likes, until these are left out."""
    rows, columns = np.indices((SIZE, SIZE))
    images = []
    for i in range(10):
        values = 120 + 40 * np.sin(columns / 4) + np.random.default_rng(i).normal(0, 6, (SIZE, SIZE))
        image = np.clip(values, 0, 255).astype(np.uint8)
        if i < 4:
            cv2.circle(image, (88, 40), 12, 255, -1)
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
        images.append({"uri": str(tmp_path / f"{i}.png"), "role": "query", "image_id": _make_id(i)})
    near = np.hypot(rows - 40, columns - 88) < 8
    kept, cleaned = (
        compute_maps(fit(_make_config(drop=drop, nearest=0.3), images[1:]), images[:1])[0] for drop in (0.0, 0.2)
    )
    assert cleaned[near].mean() > 1.5 * kept[near].mean()
    assert cleaned[80:, :60].mean() < 1.1 * kept[80:, :60].mean(), "where there is no defect, little changes"


def test_a_single_reference_keeps_its_patches() -> None:
    bank = MemoryBank(torch.rand(9, 4).half(), torch.zeros(9, dtype=torch.int64))
    assert drop_anomalous(bank, 0.5, 0.5) is bank
    two = MemoryBank(torch.cat([bank.features_MD, bank.features_MD + 1e-3]), torch.arange(18) // 9)
    two.features_MD[4] += 9  # farthest from the other image
    kept = drop_anomalous(two, 1 / 18, 0.5)
    assert torch.equal(kept.features_MD, torch.cat([two.features_MD[:4], two.features_MD[5:]]))
    assert torch.equal(kept.images_M, torch.tensor([0] * 8 + [1] * 9))


def test_references_do_not_depend_on_order() -> None:
    ids = [_make_id(i) for i in range(300)]
    chosen = choose_references(ids, 50)
    assert len(chosen) == 50
    assert chosen == choose_references(reversed(ids), 50)
    assert choose_references(ids[:20], 50) == frozenset(ids[:20])
