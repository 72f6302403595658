"""Augmented views by OpenCV, compared with the same operations in the same ranges by PIL.

python benchmarks/views.py
"""

from __future__ import annotations

import statistics

import cv2
import numpy as np
from literal import draw_pil_view
from PIL import Image
from timing import describe_machine, format_time, time_call

from ancd_ray.method.views import random_view

VIEWS = 200


def main() -> None:
    """Print mean and median of both, measured in turns for each view."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), (256, 256))
    mask = np.zeros((256, 256), np.uint8)
    cv2.circle(mask, (128, 128), 60, 255, -1)
    as_pil = Image.fromarray(image), Image.fromarray(mask)
    fast, slow = [], []
    for seed in range(VIEWS):
        fast.append(time_call(lambda seed=seed: random_view(image, mask, np.random.default_rng(seed))))
        slow.append(time_call(lambda seed=seed: draw_pil_view(*as_pil, np.random.default_rng(seed))))
    print(describe_machine())
    for name, of in (("mean", statistics.mean), ("median", statistics.median)):
        print(f"{name}: PIL {format_time(of(slow))}, OpenCV {format_time(of(fast))}, {of(slow) / of(fast):.0f}×")


if __name__ == "__main__":
    main()
