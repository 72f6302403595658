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
from ancd_ray.detectors.calibration import Calibration
from ancd_ray.detectors.musc import MuSc
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


def _make_map(features: ImageFeatures | BadImage, score_RC: torch.Tensor, config: MuSc) -> NDArray[Any]:
    assert not isinstance(features, BadImage)
    made = make_map(features, lambda _: [score_RC], config, Lite().stride)
    assert not isinstance(made, BadImage)
    return made


def test_all_images_as_references_are_the_form_over_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [_write(tmp_path, i, defect=i == 3) for i in range(7)]
    config = MuSc(name="musc", image_size=SIZE, neighborhoods=(1, 3, 5), nearest=0.3)
    monkeypatch.setattr(mutual_scoring, "_COLUMNS", 600)  # two references of 256 patches
    for found, expected in zip(
        compute_maps(fit(config, images), images), _score_all_pairs(config, images), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_a_defect_is_found_without_any_normal_image(tmp_path: Path) -> None:
    images = [_write(tmp_path, i, defect=i == 5) for i in range(8)]
    maps = compute_maps(fit(MuSc(name="musc", image_size=SIZE), images), images)
    scores = [float(np.max(found)) for found in maps]
    assert int(np.argmax(scores)) == 5
    y, x = np.unravel_index(np.argmax(maps[5]), (SIZE, SIZE))
    assert np.hypot(x - 88, y - 40) < 16


def test_an_image_is_scored_the_same_in_any_company(tmp_path: Path) -> None:
    images = [_write(tmp_path, i) for i in range(6)]
    scorer = fit(MuSc(name="musc", image_size=SIZE), images[:4])
    together, alone = compute_maps(scorer, images), [compute_maps(scorer, [image])[0] for image in images]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_images_have_maps(tmp_path: Path, n: int) -> None:
    """The number of nearest references is at least one, and an image without any is compared with itself."""
    images = [_write(tmp_path, i, defect=i == 0) for i in range(n)]
    maps = compute_maps(fit(MuSc(name="musc", image_size=SIZE), images), images)
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


def test_the_most_anomalous_references_are_left_out(tmp_path: Path) -> None:
    """A defect of half the references counts as normal, until the references that have it are dropped."""
    images = [_write(tmp_path, i, defect=i < 4) for i in range(8)]
    new = _write(tmp_path, 99, defect=True)
    scores = {image["image_id"]: float(i < 4) for i, image in enumerate(images)}
    calibration = Calibration({}, scores, {}, 1.0)
    config = MuSc(name="musc", image_size=SIZE, drop=0.5)
    kept, dropped = (compute_maps(fit(config, images, given), [new])[0] for given in (None, calibration))
    assert dropped.max() > 1.2 * kept.max()


def test_references_do_not_depend_on_order() -> None:
    ids = [_make_id(i) for i in range(300)]
    chosen = choose_references(ids, 50)
    assert len(chosen) == 50
    assert chosen == choose_references(reversed(ids), 50)
    assert choose_references(ids[:20], 50) == frozenset(ids[:20])
