"""What a discovery says of its classes."""

from __future__ import annotations

from ancd_ray.jobs.identity.discovered import Discovered


def test_new_classes_are_told_beside_any_known_ones() -> None:
    rows = {"tile-c0007": {"regions": 1234, "images": 5}}
    first, beside = (Discovered("tile", ["tile-c0007"], frozenset(), others, rows, {}) for others in (False, True))
    assert not list(first.describe())
    assert list(beside.describe()) == ["tile: new class tile-c0007 (1,234 regions in 5 images)"]
