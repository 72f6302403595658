"""What is said of a score range whose lower end no normal image has set."""

from __future__ import annotations

import pytest

from ancd_ray.config.sections import MebinConfig
from ancd_ray.detectors.score_range import Range, warn_of_range


@pytest.mark.parametrize(
    ("measured", "keys", "knows_normal", "is_told"),
    [
        (Range(1.2, 1.9), {}, False, True),
        (Range(1.2, 1.9), {}, True, False),
        (Range(0.1, 1.9), {}, False, False),
        (Range(1.2, 1.9), {"floor": 1.0}, False, False),
        (Range(1.2, 1.9), {"binarize": "calibrated"}, False, False),
    ],
)
def test_a_range_without_a_normal_image_is_told(
    measured: Range, keys: dict[str, object], knows_normal: bool, is_told: bool
) -> None:
    told = warn_of_range(measured, MebinConfig.model_validate(keys), knows_normal)
    assert bool(told) == is_told
    if told:
        assert "1.2" in told
        assert "list normal images" in told
