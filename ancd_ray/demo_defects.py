"""The defects of the demo product: seven painters, each drawing one region with its exact support.

A painter adds grey levels to a surface, so a defect keeps the texture under it; no pixel outside its support changes.
Each draws one region about `centre` (x, y), reaching about `extent` pixels from it, in an image of side `size`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]
# shade (size, size): grey levels to add; support (size, size): the pixels that belong to the defect
Painted = tuple[FloatArray, NDArray[np.bool_]]
Painter = Callable[[np.random.Generator, int, FloatArray, float], Painted]


def _polar(
    rng: np.random.Generator, size: int, centre: FloatArray, radius: float, squeeze: float
) -> tuple[FloatArray, FloatArray]:
    """Radius (1 on an ellipse of random orientation) and angle of every pixel about the centre."""
    turn = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    u = (np.cos(turn) * (x - centre[0]) + np.sin(turn) * (y - centre[1])) / radius
    v = (-np.sin(turn) * (x - centre[0]) + np.cos(turn) * (y - centre[1])) / (radius * squeeze)
    return np.hypot(u, v).astype(np.float32), np.arctan2(v, u).astype(np.float32)


def _stroke(canvas: ByteArray, points: NDArray[Any], width: int) -> None:
    """Draw an anti-aliased polyline; points (n, 2) in pixels keep four bits of fraction."""
    cv2.polylines(canvas, [np.rint(points * 16).astype(np.int32)], False, 255, width, cv2.LINE_AA, 4)


def _covered(canvas: ByteArray, levels: float) -> Painted:
    return canvas.astype(np.float32) * np.float32(levels / 255), canvas > 32  # a fainter fringe could not be seen


def _scratch(rng: np.random.Generator, size: int, centre: FloatArray, extent: float) -> Painted:
    """A thin bright line, gently curved."""
    along, turn = np.linspace(-1.3, 1.3, 24), rng.uniform(0, np.pi)
    bow = rng.uniform(-0.35, 0.35) * (along**2 - 0.5)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    canvas = np.zeros((size, size), np.uint8)
    _stroke(canvas, centre + extent * np.stack([along, bow], 1) @ axes, max(1, round(size / 110)))
    return _covered(canvas, rng.uniform(60, 90))


def _hole(rng: np.random.Generator, size: int, centre: FloatArray, extent: float) -> Painted:
    """A dark pit with a raised, bright rim."""
    r, _ = _polar(rng, size, centre, extent * rng.uniform(0.4, 0.6), rng.uniform(0.85, 1))
    pit = -rng.uniform(85, 110) * (1 - 0.4 * r**2)
    return np.where(r < 0.78, pit, rng.uniform(35, 50)).astype(np.float32), r < 1


def _stain(rng: np.random.Generator, size: int, centre: FloatArray, extent: float) -> Painted:
    """A soft blotch of low contrast with a wavy outline."""
    r, angle = _polar(rng, size, centre, extent, rng.uniform(0.6, 0.95))
    waves = [rng.uniform(0.04, 0.12) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5)]
    depth = np.clip((1 - r / (1 + np.sum(waves, axis=0))) * 2, 0, 1)
    return np.asarray(-rng.uniform(22, 32) * depth**0.7, np.float32), depth > 0.08


def _crack(rng: np.random.Generator, size: int, centre: FloatArray, extent: float) -> Painted:
    """A jagged dark line: two arms walk out of the centre and branch on the way."""
    canvas = np.zeros((size, size), np.uint8)
    width, turn = max(1, round(size / 128)), rng.uniform(0, np.pi)
    arms = [(centre.astype(np.float64), turn + half + rng.normal(0, 0.3), 9) for half in (0, np.pi)]
    while arms:
        point, heading, steps = arms.pop()
        walk = [point]
        for left in range(steps, 0, -1):
            jag = heading + rng.uniform(-0.9, 0.9)
            walk.append(walk[-1] + 0.14 * extent * np.array([np.cos(jag), np.sin(jag)]))
            if left > 3 and rng.random() < 0.3:
                arms.append((walk[-1], heading + rng.choice([-1, 1]) * rng.uniform(0.6, 1.1), left // 2))
        _stroke(canvas, np.stack(walk), width)
    return _covered(canvas, -rng.uniform(75, 100))


def _bump(rng: np.random.Generator, size: int, centre: FloatArray, extent: float) -> Painted:
    """A dome lit from the upper left: bright on that side, dark on the other."""
    radius = extent * rng.uniform(0.6, 0.9)
    r, _ = _polar(rng, size, centre, radius, 1.0)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    slope = (x - centre[0] + y - centre[1]) / radius
    return np.asarray(-rng.uniform(45, 65) * slope * np.clip(1.2 - r, 0, 1) + 6, np.float32), r < 1


def _spot(rng: np.random.Generator, size: int, centre: FloatArray, extent: float) -> Painted:
    """A pale disc of paint."""
    r, _ = _polar(rng, size, centre, extent * rng.uniform(0.35, 0.6), rng.uniform(0.7, 1))
    return np.full((size, size), rng.uniform(70, 95), np.float32), r < 1


def _groove(rng: np.random.Generator, size: int, centre: FloatArray, extent: float) -> Painted:
    """A straight wide furrow."""
    turn = rng.uniform(0, np.pi)
    half = 1.2 * extent * np.array([np.cos(turn), np.sin(turn)])
    canvas = np.zeros((size, size), np.uint8)
    _stroke(canvas, np.stack([centre - half, centre + half]), max(3, round(extent / 4)))
    return _covered(canvas, -rng.uniform(50, 70))


# painter, and how strongly its shade acts on blue, green and red
TILE_KINDS: Mapping[str, tuple[Painter, tuple[float, float, float]]] = {
    "scratch": (_scratch, (1, 1, 1)),
    "hole": (_hole, (1, 1, 1)),
    "stain": (_stain, (1.5, 1, 0.6)),
    "crack": (_crack, (1, 1, 1)),
}
BASE_KINDS: Mapping[str, tuple[Painter, tuple[float, float, float]]] = {
    "bump": (_bump, (0.6, 0.9, 1)),
    "spot": (_spot, (0.9, 1, 0.8)),
    "groove": (_groove, (0.5, 0.8, 1)),
}
