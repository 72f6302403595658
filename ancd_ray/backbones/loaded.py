"""Backbones in worker processes: the device, and a cache of what is loaded."""

from __future__ import annotations

import os
from functools import lru_cache

import cv2
import torch

from ancd_ray.backbones import load
from ancd_ray.backbones.base import Backbone
from ancd_ray.config.sections import BackboneConfig


def pick_device() -> str:
    """Return the GPU that this process was given, or the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=2)
def load_cached(config: BackboneConfig) -> Backbone:
    """Load a backbone, once per process; detectors may use one with other settings than views."""
    if threads := os.environ.get("OMP_NUM_THREADS"):  # Ray gives a worker as many as its CPUs
        torch.set_num_threads(int(threads))
        cv2.setNumThreads(int(threads))
    return load(
        config.name,
        config.weights,
        config.sha256,
        config.mask_layers,
        pick_device(),
        config.mask,
        config.color_normalization,
        config.ring or 0.0,
    )
