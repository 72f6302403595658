"""Defects of the synthetic products: seven painters, each of which draws one region and its exact support.

A painter adds gray levels to a surface, so the texture under a defect is preserved; pixels outside its support do not
change. The region is around `center` (x, y) and extends about `extent` pixels from it, in an image of side `size`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]
# shade (size, size): gray levels to add; support (size, size): the pixels that belong to the defect
Painted = tuple[FloatArray, NDArray[np.bool_]]
Painter = Callable[[np.random.Generator, int, FloatArray, float], Painted]


def _polar(
    rng: np.random.Generator, size: int, center: FloatArray, radius: float, squeeze: float
) -> tuple[FloatArray, FloatArray]:
    """Compute radius (1 on an ellipse of random orientation) and angle of every pixel around the center."""
    turn = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    u = (np.cos(turn) * (x - center[0]) + np.sin(turn) * (y - center[1])) / radius
    v = (-np.sin(turn) * (x - center[0]) + np.cos(turn) * (y - center[1])) / (radius * squeeze)
    return np.hypot(u, v).astype(np.float32), np.arctan2(v, u).astype(np.float32)


def _towards_shadow(size: int, center: FloatArray, radius: float) -> FloatArray:
    """Compute the position of every pixel along the light from the upper left: −1 to 1 within the radius."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return np.asarray((x - center[0] + y - center[1]) / (np.sqrt(2) * radius), np.float32)


def _stroke(canvas: ByteArray, points: NDArray[Any], width: int) -> None:
    """Draw an anti-aliased polyline; points (n, 2) in pixels, rounded to 1/16."""
    cv2.polylines(canvas, [np.rint(points * 16).astype(np.int32)], False, 255, width, cv2.LINE_AA, 4)


def _visible(shade: NDArray[np.floating]) -> Painted:
    """Pair a shade with its support: pixels above 8 gray levels, since an annotator would not see fainter ones."""
    return shade.astype(np.float32), np.abs(shade) > 8


def _scratch(rng: np.random.Generator, size: int, center: FloatArray, extent: float) -> Painted:
    """Draw a thin bright line, slightly curved, that fades out at its ends and casts a shadow."""
    along, turn = np.linspace(-1.3, 1.3, 40), rng.uniform(0, np.pi)
    bow = rng.uniform(-0.35, 0.35) * (along**2 - 0.5) + 0.012 * rng.standard_normal(40)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = center + extent * np.stack([along, bow], 1) @ axes
    force = np.sqrt(np.cos(along / 1.3 * np.pi / 2).clip(0.12)) * rng.uniform(0.8, 1, 40)
    width = max(1, round(size / 110))
    ridge, shadow = np.zeros((2, size, size), np.float32)
    for canvas, shift in ((ridge, 0.0), (shadow, 0.8 * width)):
        for i in range(len(points) - 1):
            segment = np.zeros((size, size), np.uint8)
            _stroke(segment, points[i : i + 2] + shift, width)
            np.maximum(canvas, segment * np.float32(force[i] / 255), out=canvas)
    levels = rng.uniform(80, 110)
    return _visible(levels * ridge - 0.5 * levels * shadow * (1 - ridge))


def _hole(rng: np.random.Generator, size: int, center: FloatArray, extent: float) -> Painted:
    """Draw a dark pit with a faintly lit far wall and a raised rim, bright where it faces the light."""
    radius = extent * rng.uniform(0.4, 0.6)
    r, angle = _polar(rng, size, center, radius, rng.uniform(0.85, 1))
    r = r * (1 + 0.03 * np.cos(3 * angle + rng.uniform(0, 2 * np.pi)))  # not perfectly round
    away = _towards_shadow(size, center, radius)
    pit = -rng.uniform(105, 120) + 45 * (away * r).clip(0, 1)
    rim = rng.uniform(15, 25) - 40 * away
    return np.where(r < 0.82, pit, rim).astype(np.float32), r < 1


def _stain(rng: np.random.Generator, size: int, center: FloatArray, extent: float) -> Painted:
    """Draw a soft blotch of low contrast with a wavy outline."""
    r, angle = _polar(rng, size, center, extent, rng.uniform(0.6, 0.95))
    waves = [rng.uniform(0.04, 0.12) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5)]
    depth = np.clip((1 - r / (1 + np.sum(waves, axis=0))) * 2, 0, 1)
    return np.asarray(-rng.uniform(22, 32) * depth**0.7, np.float32), depth > 0.08


def _crack(rng: np.random.Generator, size: int, center: FloatArray, extent: float) -> Painted:
    """Draw a jagged dark line: two arms that start at the center and branch into finer ones."""
    canvas = np.zeros((size, size), np.uint8)
    width, turn = max(2, round(size / 100)), rng.uniform(0, np.pi)
    arms = [(center.astype(np.float64), turn + half + rng.normal(0, 0.3), 9, width) for half in (0, np.pi)]
    while arms:
        point, heading, steps, width = arms.pop()
        walk = [point]
        for left in range(steps, 0, -1):
            jag = heading + rng.uniform(-0.9, 0.9)
            walk.append(walk[-1] + 0.14 * extent * np.array([np.cos(jag), np.sin(jag)]))
            if left > 3 and rng.random() < 0.3:
                fork = heading + rng.choice([-1, 1]) * rng.uniform(0.6, 1.1)
                arms.append((walk[-1], fork, left // 2, max(1, width - 1)))
        _stroke(canvas, np.stack(walk[: steps // 2 + 1]), width)
        _stroke(canvas, np.stack(walk[steps // 2 :]), max(1, width - 1))
    return _visible(-rng.uniform(80, 105) / 255 * canvas.astype(np.float32))


def _bump(rng: np.random.Generator, size: int, center: FloatArray, extent: float) -> Painted:
    """Draw a dome, bright towards the light and dark on the other side."""
    radius = extent * rng.uniform(0.6, 0.9)
    r, _ = _polar(rng, size, center, radius, 1.0)
    away = _towards_shadow(size, center, radius)
    return np.asarray(6 - rng.uniform(70, 95) * away * np.clip(1.2 - r, 0, 1), np.float32), r < 1


def _spot(rng: np.random.Generator, size: int, center: FloatArray, extent: float) -> Painted:
    """Draw a splash of light paint, thicker towards its wavy edge."""
    r, angle = _polar(rng, size, center, extent * rng.uniform(0.35, 0.6), rng.uniform(0.7, 1))
    waves = [rng.uniform(0.02, 0.07) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (3, 4, 7)]
    r = r / (1 + np.sum(waves, axis=0))
    return np.asarray(rng.uniform(70, 90) + 15 * r**4, np.float32), r < 1


def _groove(rng: np.random.Generator, size: int, center: FloatArray, extent: float) -> Painted:
    """Draw a straight wide furrow, deepest in the middle; the wall that faces the light is less dark."""
    turn = rng.uniform(0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)])
    half, width = 1.2 * extent * along, max(3, round(extent / 4))
    canvas = np.zeros((size, size), np.uint8)
    _stroke(canvas, np.stack([center - half, center + half]), width)
    y, x = np.mgrid[:size, :size]
    across = (-along[1] * (x - center[0]) + along[0] * (y - center[1])) * 2 / width  # −1 to 1 from wall to wall
    facing = np.sign(along[0] - along[1]) * across  # with the sign that points away from the light
    profile = 1 - 0.3 * across**2 - 0.45 * facing.clip(0, 1)
    return _visible(-rng.uniform(65, 85) / 255 * canvas * profile.clip(0.2, 1))


# painter, and factors of its shade for blue, green and red
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
