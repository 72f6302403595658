"""The tree of classes in a report as plain values, and where its branches are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ancd_ray.jobs.report.model import GalleryItem

ROW, WIDTH = 22, 340  # units of the drawing: height of a leaf's row, and width of the branches
_MARGIN = 6


@dataclass(frozen=True)
class Leaf:
    """A leaf: the index of its class in the run, the number of its regions, of these by label, and examples."""

    cls: int
    regions: int
    labels: Mapping[str, int]
    items: Sequence[GalleryItem]


@dataclass(frozen=True)
class Branch:
    """The drawn line of a node, from its own merge to the one above, and across its own merge: SVG coordinates."""

    node: int
    path: str


@dataclass(frozen=True)
class TreeReport:
    """Leaves and their merges.

    Parameters
    ----------
    leaves
        The leaves, by number.
    children, heights
        The two nodes of each merge, by increasing height; leaves come first, then the merges in their order.
    names
        Names of the classes of the run, by index.
    n_told
        Number of classes beside those of the tree (the normal one, if scores of images tell it).
    n_regions
        Number of regions that are counted, and of all.
    command
        Command that makes another number of classes a run, without the number.
    """

    leaves: Sequence[Leaf]
    children: Sequence[tuple[int, int]]
    heights: Sequence[float]
    names: Sequence[str]
    n_told: int
    n_regions: tuple[int, int]
    command: str

    @property
    def n_classes(self) -> int:
        """Number of classes of the run that the tree knows, and those beside."""
        return len({leaf.cls for leaf in self.leaves}) + self.n_told

    @property
    def low(self) -> int:
        """The smallest number of classes to choose."""
        return min(2 + self.n_told, self.high)

    @property
    def high(self) -> int:
        """The largest number of classes to choose."""
        return len(self.leaves) + self.n_told

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the drawing."""
        return WIDTH + 60, ROW * len(self.leaves)

    @cached_property
    def rows(self) -> dict[int, float]:
        """Row of each leaf, so that no lines cross, and of each merge the middle of what it joins."""
        order: list[int] = []
        todo = [len(self.leaves) + len(self.children) - 1]
        while todo:
            node = todo.pop()
            if node < len(self.leaves):
                order.append(node)
            else:
                todo += reversed(self.children[node - len(self.leaves)])
        rows = {leaf: ROW * (row + 0.5) for row, leaf in enumerate(order)}
        for m, (left, right) in enumerate(self.children):
            rows[len(self.leaves) + m] = (rows[left] + rows[right]) / 2
        return rows

    def place(self, height: float) -> float:
        """Return the horizontal position of a height."""
        top = self.heights[-1] if self.heights else 1.0
        return round(_MARGIN + (WIDTH - 2 * _MARGIN) * (1 - height / max(top, 1e-12)), 1)

    @property
    def branches(self) -> list[Branch]:
        """The lines of all nodes but the root."""
        n_leaves, found = len(self.leaves), []
        for m, pair in enumerate(self.children):
            x_above, y_above = self.place(self.heights[m]), self.rows[n_leaves + m]
            for node in pair:
                x = self.place(self.heights[node - n_leaves]) if node >= n_leaves else WIDTH
                found.append(Branch(node, f"M{x_above} {y_above:g}V{self.rows[node]:g}H{x}"))
        return found

    @property
    def lines(self) -> list[float]:
        """Position of the line that cuts the tree into 1, 2, … classes."""
        places = [self.place(height) for height in reversed(self.heights)]
        return [round((a + b) / 2, 1) for a, b in zip([0.0, *places], [*places, float(WIDTH)], strict=True)]

    @property
    def data(self) -> dict[str, Any]:
        """What the script of the page reads."""
        return {
            "children": [list(pair) for pair in self.children],
            "classes": [leaf.cls for leaf in self.leaves],
            "regions": [leaf.regions for leaf in self.leaves],
            "labels": [dict(leaf.labels) for leaf in self.leaves],
            "names": list(self.names),
            "told": self.n_told,
            "lines": self.lines,
            "command": self.command,
        }
