"""Counts the regions of a map above every level with one union-find; requires numba, and is imported only if needed.

A pixel has a height: the number of levels it exceeds. From the highest level down, pixels appear and become connected;
the number of regions grows by one for each region that appears and falls by one for each pair that is joined:
0-dimensional persistent homology.

Two exact optimizations:
- The pixels of a 2 x 2 block all touch each other, so a block is one node: it appears with its highest pixel, and two
  blocks are connected at min(highest pixel on one side, highest pixel on the other side) of their shared border.
- A block that is connected to a neighbor at its own height never is a region of its own: it is joined immediately,
  without being counted. Its root is at least as high, so all further connections go through the root, and edges within
  the same tree are dropped. The remaining edges are ridges between peaks, few on a smooth map; they are processed from
  high to low (Kruskal).

Cost: one pass over the words of eight pixels that are not all zero. The alternative, labeling every level separately,
reads the whole map once per level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def counts_above(  # noqa: PLR0912  (one loop: passing arrays to functions is slow in numba)
    values_HW: NDArray[np.uint8], words: NDArray[np.uint64], height_of: NDArray[np.uint8], n_levels: int
) -> NDArray[np.int64]:
    """Count the 8-connected regions of height at least n, …, 2, 1, for n levels (at most 255).

    Parameters
    ----------
    values_HW
        Map; H is even, W a multiple of 8.
    words
        The same memory in words of eight pixels, (H, W / 8); a word of zeros holds no pixel of any height.
    height_of
        Height of each value, (256,).
    n_levels
        n.

    Returns
    -------
    ndarray
        Number of regions at each level, (n,).
    """
    rows, columns = values_HW.shape[0] // 2, values_HW.shape[1] // 2
    width = columns + 2  # padded by empty blocks on the left, right and top
    size = (rows + 1) * width
    root = np.empty(size, np.uint32)
    # heights of a block: its peak, its right side, its lower side, its lower left and lower right corner
    block = np.zeros((size, 5), np.uint8)
    blocks, n_blocks = np.empty(rows * columns, np.uint32), 0
    # ridges: a linked list per height, because their number is not known in advance
    one, other, following = np.empty(4 * size, np.uint32), np.empty(4 * size, np.uint32), np.empty(4 * size, np.int32)
    first, n_ridges = np.full(n_levels + 1, -1, np.int32), 0

    for y in range(rows):
        for word in range(words.shape[1]):
            if words[2 * y, word] | words[2 * y + 1, word] == 0:
                continue
            for x in range(4 * word, 4 * word + 4):
                a, b = height_of[values_HW[2 * y, 2 * x]], height_of[values_HW[2 * y, 2 * x + 1]]
                c, d = height_of[values_HW[2 * y + 1, 2 * x]], height_of[values_HW[2 * y + 1, 2 * x + 1]]
                peak = max(a, b, c, d)
                if peak == 0:
                    continue
                here = np.uint32((y + 1) * width + x + 1)
                block[here, 0], block[here, 1], block[here, 2] = peak, max(b, d), max(c, d)
                block[here, 3], block[here, 4] = c, d
                root[here] = here
                blocks[n_blocks] = here
                n_blocks += 1
                for side in range(4):  # neighbors visited before, and the height at which they are connected
                    if side == 0:
                        near = np.uint32(here - 1)
                        meet = min(max(a, c), block[near, 1])
                    elif side == 1:
                        near = np.uint32(here - width)
                        meet = min(max(a, b), block[near, 2])
                    elif side == 2:
                        near = np.uint32(here - width - 1)
                        meet = min(a, block[near, 4])
                    else:
                        near = np.uint32(here - width + 1)
                        meet = min(b, block[near, 3])
                    if meet == 0:
                        continue
                    mine, its = _find(root, here), _find(root, near)
                    if mine == its:
                        continue
                    if mine == here and meet == peak:
                        root[here] = its
                    elif its == near and meet == block[near, 0]:
                        root[near] = mine
                    else:
                        one[n_ridges], other[n_ridges] = mine, its
                        following[n_ridges], first[meet] = first[meet], n_ridges
                        n_ridges += 1
    counts: NDArray[np.int64] = _merge(root, blocks[:n_blocks], block, first, following, one, other)
    return counts


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _merge(root: Any, blocks: Any, block: Any, first: Any, following: Any, one: Any, other: Any) -> Any:
    """Process the ridges from the highest to the lowest and count the regions at each height."""
    appear = np.zeros(len(first), np.int64)
    for here in blocks:
        if root[here] == here:
            appear[block[here, 0]] += 1
    counts, n = np.empty(len(first) - 1, np.int64), 0
    for height in range(len(counts), 0, -1):
        n += appear[height]
        ridge = first[height]
        while ridge >= 0:
            mine, its = _find(root, one[ridge]), _find(root, other[ridge])
            if mine != its:
                root[max(mine, its)] = min(mine, its)
                n -= 1
            ridge = following[ridge]
        counts[len(counts) - height] = n
    return counts


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _find(root: Any, node: Any) -> Any:
    while root[node] != node:
        root[node] = root[root[node]]  # path halving
        node = root[node]
    return node
