"""The criterion for classes without labels."""

from __future__ import annotations

import numpy as np

from ancd_ray.discovery.criterion import mean_silhouette


def test_true_classes_score_higher_than_others_and_a_single_one() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 20)
    features = np.eye(3)[truth] + rng.normal(0, 0.1, (60, 3))
    joined, shuffled, one = np.minimum(truth, 1), rng.permutation(truth), np.zeros(60, int)
    found = [mean_silhouette(features, cls) for cls in (truth, joined, shuffled, one)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.7
    assert found[-1] == -1
