"""Fused maps and calibrations: scales make detectors comparable, and normal images say how high a score is."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from ancd_ray.data.images import BadImage
from ancd_ray.detectors.calibration import Calibration
from ancd_ray.detectors.fuse import Fuse, FusedScorer, fuse_maps


def test_maps_are_averaged_on_the_scales_of_their_detectors() -> None:
    """A detector whose distances are a thousand times larger counts as much as another."""
    rng = np.random.default_rng(0)
    first, second = rng.random((8, 6), np.float32), rng.random((8, 6), np.float32)
    expected = fuse_maps([first, second], [1, 1])
    np.testing.assert_allclose(expected, (first + second) / 2, rtol=1e-6)
    np.testing.assert_allclose(fuse_maps([first, 1000 * second], [1, 1000]), expected, rtol=1e-5)
    assert fuse_maps([first, np.ones((16, 12), np.float32)], [1, 1]).shape == (8, 6)


def test_the_reason_of_a_part_is_that_of_the_image() -> None:
    class Maps:
        def __init__(self, *maps: object) -> None:
            self._maps = maps

        def score(self, images: object) -> list[object]:
            return list(self._maps)

    good = np.ones((2, 2), np.float32)
    scorer = FusedScorer([Maps(good, good), Maps(BadImage("it is empty"), 3 * good)], [1.0, 1.0])  # type: ignore[arg-type]
    broken, found = scorer.score([{}, {}])
    assert str(broken) == "it is empty"
    np.testing.assert_allclose(found, 2 * good)


def test_a_calibration_is_robust_to_few_defects_and_survives_its_file() -> None:
    rng = np.random.default_rng(0)
    maps = {f"{i}": rng.random((16, 16), np.float32) for i in range(20)}
    clean = Calibration.measure(maps, {})
    spoiled = Calibration.measure({**maps, "0": 50 * maps["0"], "1": 50 * maps["1"]}, {})
    assert spoiled.scale == pytest.approx(clean.scale, rel=0.02)
    assert clean.find_quantile(0.0) == 0
    assert clean.find_quantile(2.0) == 1
    middle = float(np.median(list(clean.normal_scores.values())))
    assert clean.find_quantile(middle) == pytest.approx(0.5, abs=0.05)
    assert Calibration.read(spoiled.write()) == spoiled
    nested = Calibration.measure(maps, {}, [clean, spoiled])
    assert Calibration.read(nested.write()) == nested
    assert Calibration.measure({}, {}).find_quantile(1.0) is None
    only_references = Calibration.measure({}, maps)
    assert not only_references.normal_scores
    assert only_references.find_quantile(2.0) == 1


def test_only_one_part_reads_maps() -> None:
    with pytest.raises(ValidationError, match="only one detector can read maps"):
        Fuse.model_validate({"name": "fuse", "detectors": [{"name": "precomputed"}, {"name": "precomputed"}]})
