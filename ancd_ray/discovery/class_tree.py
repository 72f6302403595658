"""Tree of classes: the last merges of a dendrogram, by which a discovery has every number of classes.

A leaf is a class of the largest number, and a class is a set of leaves. Cuts, merges and splits give each leaf a class
and compute nothing else, so that they take no time and lose nothing.

Shape suffixes: M references, L leaves, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from ancd_ray.discovery.clusterings.dendrogram import Dendrogram, Labels, Nested
from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.discovery.features.region_features import one_hot

FILE = "tree.safetensors"


@dataclass(frozen=True)
class ClassTree:
    """Leaves, their merges, and the class of each leaf.

    Parameters
    ----------
    children
        The two nodes (L - 1, 2) of each merge, by increasing height. Nodes 0 … L - 1 are the leaves, L + m is the
        result of merge m.
    heights
        Heights (L - 1,) of the merges.
    probs_ML
        Probabilities of the leaves for each reference, which sum to 1.
    score_L, weight_L
        Mean anomaly score, and number of regions of each leaf.
    cls_L
        Class of each leaf, 0 … K - 1.
    has_normal
        Whether class 0 is the normal one.
    """

    children: NDArray[np.int64]
    heights: NDArray[np.float64]
    probs_ML: NDArray[np.float32]
    score_L: NDArray[np.float64]
    weight_L: NDArray[np.float64]
    cls_L: Labels
    has_normal: bool

    @classmethod
    def of(cls, nested: Nested, n_leaves: int, score_M: Floats, weight_M: Floats | None, has_normal: bool) -> ClassTree:
        """Make the tree of nested classes of the references; it has one class until it is cut.

        Parameters
        ----------
        nested
            Nested classes of the references.
        n_leaves
            Number of leaves, if there are as many references.
        score_M, weight_M
            Anomaly score of each reference, and the number of regions that it stands for (None: one).
        has_normal
            Whether the class with the lowest score is called normal, and comes first.
        """
        n_leaves = min(n_leaves, len(score_M))
        dendrogram = nested.dendrogram
        leaf_M, n_merges = dendrogram.cut(n_leaves), n_leaves - 1
        weight_M = np.ones(len(leaf_M)) if weight_M is None else weight_M
        weight_L = np.bincount(leaf_M, weight_M)
        top = dendrogram.children[len(dendrogram.children) - n_merges :]
        first = 2 * len(leaf_M) - 1 - n_merges  # node of the dendrogram that the first of these merges results in
        below = np.setdiff1d(top, np.arange(first, first + n_merges))  # in the order in which they are numbered
        children = np.where(top >= first, top - first + n_leaves, np.searchsorted(below, top))
        return cls(
            np.asarray(children, np.int64).reshape(n_merges, 2),
            dendrogram.heights[len(dendrogram.heights) - n_merges :],
            nested.cut(n_leaves),
            np.asarray(np.bincount(leaf_M, weight_M * score_M) / weight_L, np.float64),
            np.asarray(weight_L, np.float64),
            np.zeros(n_leaves, np.int64),
            has_normal,
        )

    @classmethod
    def load(cls, read: Callable[[str], bytes]) -> ClassTree:
        """Load it; `read` returns the bytes of a file by name."""
        arrays = {name: tensor.numpy() for name, tensor in load(read(FILE)).items()}
        return cls(**{**arrays, "has_normal": bool(arrays["has_normal"][0])})

    def save(self) -> dict[str, bytes]:
        """Return the file by its name."""
        arrays = {**vars(self), "has_normal": np.array([self.has_normal])}
        return {FILE: save({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})}

    @property
    def n_leaves(self) -> int:
        """Number of leaves, which is the largest number of classes."""
        return len(self.cls_L)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.cls_L.max()) + 1

    @property
    def probs_MK(self) -> NDArray[np.float32]:
        """Probabilities of the classes for each reference."""
        return self.probs_ML @ one_hot(self.cls_L, self.n_classes)

    def take(self, rows: NDArray[np.int64]) -> ClassTree:
        """Select some of the references; the leaves stay."""
        return replace(self, probs_ML=self.probs_ML[rows])

    def cut(self, n_classes: int) -> ClassTree:
        """Return it with the classes that are left after all merges but the last `n_classes` - 1.

        Raises
        ------
        ValueError
            There are fewer leaves than classes, or no classes.
        """
        if not 1 <= n_classes <= self.n_leaves:
            raise ValueError(f"the tree has from 1 to {self.n_leaves} classes, and not {n_classes}")
        cls_L = Dendrogram(self.children, self.heights).cut(n_classes)
        if self.has_normal:
            score_K = np.bincount(cls_L, self.weight_L * self.score_L) / np.bincount(cls_L, self.weight_L)
            normal = int(np.argmin(score_K))
            cls_L = np.where(cls_L == normal, 0, cls_L + (cls_L < normal))
        return replace(self, cls_L=np.asarray(cls_L, np.int64))

    def merge(self, classes: Sequence[int]) -> ClassTree:
        """Return it with classes as one, which has the lowest of their numbers."""
        merged_L = np.where(np.isin(self.cls_L, classes), min(classes), self.cls_L)
        return replace(self, cls_L=np.unique(merged_L, return_inverse=True)[1])

    def split(self, cls: int) -> ClassTree:
        """Return it with a class undone at the highest merge that joins two leaves of it.

        The larger part keeps the number of the class, of the normal class the one with the lower score; the other part
        becomes the last class.

        Raises
        ------
        ValueError
            The class is a single leaf.
        """
        own = np.flatnonzero(self.cls_L == cls)
        if len(own) < 2:
            raise ValueError("it is a leaf of the tree, which is not divided further")
        part_L = np.arange(self.n_leaves)
        for m, (left, right) in enumerate(self.children):
            before_L, part_L = part_L, np.where(np.isin(part_L, (left, right)), self.n_leaves + m, part_L)
            if len(set(part_L[own])) == 1:
                break
        is_one_L = before_L == before_L[own[0]]
        parts = [own[is_one_L[own]], own[~is_one_L[own]]]
        if self.has_normal and cls == 0:
            parts.sort(key=lambda part: np.average(self.score_L[part], weights=self.weight_L[part]))
        else:
            parts.sort(key=lambda part: -self.weight_L[part].sum())
        cls_L = self.cls_L.copy()
        cls_L[parts[1]] = self.n_classes
        return replace(self, cls_L=cls_L)
