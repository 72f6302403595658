"""Detectors, which compute anomaly maps of images, one module each; `detector.name` names an entry of `DETECTORS`.

Drafted jobs take the first of those with `is_proposed` whose needs their archive meets.
"""

from __future__ import annotations

from ancd_ray.detectors.base import DetectorConfig
from ancd_ray.detectors.fuse import Fuse
from ancd_ray.detectors.graph import Graph
from ancd_ray.detectors.ground_truth import GroundTruth
from ancd_ray.detectors.musc import MuSc
from ancd_ray.detectors.patchcore import PatchCore
from ancd_ray.detectors.precomputed import Precomputed

DETECTORS: list[type[DetectorConfig]] = [
    PatchCore,
    GroundTruth,
    MuSc,
    Graph,
    Precomputed,
    Fuse,
]
