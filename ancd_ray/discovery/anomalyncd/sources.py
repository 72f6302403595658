"""Sources of the views of a batch: a precomputed bank, or views that are drawn and encoded in every step.

Shape suffixes: N regions, B regions of a batch, L visible tokens (padded to the longest), D token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancd_ray.backbones.base import Backbone, Encoded, inputs
from ancd_ray.data.images import decode_mask, decode_rgb
from ancd_ray.method.views import random_view

Ints = NDArray[np.int64]


class Views(NamedTuple):
    """2B encoded views: rows 0..B-1 are the first, rows B..2B-1 the second views of the same regions.

    Parameters
    ----------
    cls_2BD
        Class tokens.
    tokens_2BLD
        Visible tokens.
    mask_2BL
        Boolean mask of tokens, False for padding.
    """

    cls_2BD: Tensor
    tokens_2BLD: Tensor
    mask_2BL: Tensor


class ViewSource(Protocol):
    """Interface of sources: regions 0..N-1 with their labels and scores, and pairs of views of each."""

    region_ids: list[str]
    labels: list[str | None]  # base class; None for novel regions
    scores_N: NDArray[np.float32]  # anomaly score, 0..1

    def draw(self, regions_B: Ints, rng: np.random.Generator) -> Ints:
        """Draw what determines the two views of each region, (2, B).

        The result depends only on the generator, so it is the same on every rank.
        """

    def load(self, regions: Ints, draws_2B: Ints) -> Views:
        """Load the views of a batch, or of the part of it that a rank holds.

        The regions are (B,), or (2, B) where second views are those of other regions.
        """

    def sample_cls(self) -> Tensor:
        """Return class tokens (·, D) of novel regions for the calibration of the tail."""


def _pair(regions: Ints, draws_2B: Ints) -> list[tuple[int, int]]:
    """Pair the regions (B,) or (2, B) of views with what was drawn of them."""
    every_2B = np.broadcast_to(regions, draws_2B.shape)
    return list(zip(every_2B.ravel().tolist(), draws_2B.ravel().tolist(), strict=True))


@dataclass(frozen=True)
class _Buffers:
    """Columns `cls` and `tokens` of one table chunk, as float16 views of mapped memory."""

    cls: NDArray[np.float16]
    tokens: NDArray[np.float16]
    starts: Ints


class ViewBank:
    """Views stored by the views step; the files are memory-mapped, so a rank loads only the pages it reads.

    Parameters
    ----------
    tables
        Views of the novel and of the base regions, at least two of each region.
    """

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        views = pa.concat_tables(tables).select(["region_id", "role", "label", "score", "cls", "tokens"])
        encoded = views.column("region_id").dictionary_encode().combine_chunks()
        self.region_ids: list[str] = encoded.dictionary.to_pylist()
        region_of_view = np.asarray(encoded.indices)
        order = np.argsort(region_of_view, kind="stable")
        firsts = np.searchsorted(region_of_view[order], np.arange(region_of_view.max() + 1))
        self._views = np.split(order, firsts[1:])
        first_views = np.array([members[0] for members in self._views])
        roles = views.column("role").take(first_views).to_pylist()
        labels = views.column("label").take(first_views).to_pylist()
        self.labels = [label if role == "base" else None for role, label in zip(roles, labels, strict=True)]
        self.scores_N = views.column("score").take(first_views).to_numpy().astype(np.float32)
        self._cls_bytes = views.column("cls")
        self._chunks, self._chunk_of, self._row_of = _map_chunks(views)
        self.dim = self._chunks[0].cls.shape[1]

    def draw(self, regions_B: Ints, rng: np.random.Generator) -> Ints:
        """Draw two different views of each region."""
        pairs = [rng.permutation(len(self._views[region]))[:2] for region in regions_B]
        return np.stack(pairs, axis=1)

    def load(self, regions: Ints, draws_2B: Ints) -> Views:
        """Load the tokens of the drawn views, padded, as float32."""
        found = [self._read_view(int(self._views[region][draw])) for region, draw in _pair(regions, draws_2B)]
        longest = max(1, *(len(tokens) for _, tokens in found))
        tokens_2BLD = np.zeros((len(found), longest, self.dim), np.float32)
        mask_2BL = np.zeros((len(found), longest), bool)
        for i, (_, tokens) in enumerate(found):
            tokens_2BLD[i, : len(tokens)] = tokens
            mask_2BL[i, : len(tokens)] = True
        cls_2BD = np.stack([cls for cls, _ in found]).astype(np.float32)
        return Views(torch.from_numpy(cls_2BD), torch.from_numpy(tokens_2BLD), torch.from_numpy(mask_2BL))

    def sample_cls(self) -> Tensor:
        """Return the class tokens of all views of the novel regions."""
        novel = [view for views, label in zip(self._views, self.labels, strict=True) if label is None for view in views]
        return torch.from_numpy(np.stack([self._read_view(int(view))[0] for view in novel]).astype(np.float32))

    def average_tokens(self) -> NDArray[np.float32]:
        """Average the visible tokens of each region's first view, (N, D); its class token if none is visible."""
        first = [self._read_view(int(views[0])) for views in self._views]
        means = [tokens.astype(np.float32).mean(axis=0) if len(tokens) else cls for cls, tokens in first]
        return np.stack(means).astype(np.float32)

    def _read_view(self, view: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        chunk, row = self._chunks[self._chunk_of[view]], self._row_of[view]
        start, stop = chunk.starts[row] // self.dim, chunk.starts[row + 1] // self.dim
        return chunk.cls[row], chunk.tokens[start:stop]


def _map_chunks(views: pa.Table) -> tuple[list[_Buffers], Ints, Ints]:
    """Map the chunks of the table without copying.

    Returns
    -------
    chunks : list of _Buffers
        Typed views of each chunk.
    chunk_of, row_of : ndarray
        Chunk of each row of the table, and its row in the chunk.
    """
    batches = [batch for batch in views.to_batches() if batch.num_rows]
    dim = len(batches[0].column("cls")[0].as_buffer()) // 2
    chunks = []
    for batch in batches:
        cls, _ = _view_float16(batch.column("cls"))
        tokens, starts = _view_float16(batch.column("tokens"))
        chunks.append(_Buffers(cls.reshape(-1, dim), tokens.reshape(-1, dim), starts))
    chunk_of = np.repeat(np.arange(len(batches)), [batch.num_rows for batch in batches])
    row_of = np.concatenate([np.arange(batch.num_rows) for batch in batches])
    return chunks, chunk_of, row_of


def _view_float16(column: pa.Array) -> tuple[NDArray[np.float16], Ints]:
    """View a large_binary column as float16 without copying.

    Returns
    -------
    values : ndarray
        Values of all rows, concatenated.
    offsets : ndarray
        Start of each row, and the end of the last one.
    """
    _, offsets_buffer, data = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1] // 2
    values = np.frombuffer(data, np.float16) if data is not None else np.empty(0, np.float16)
    return values[offsets[0] : offsets[-1]], offsets - offsets[0]


class FreshViews:
    """Two new views of every region in every step, encoded by the frozen trunk.

    Parameters
    ----------
    tables
        The novel and the base regions.
    backbone
        Backbone that encodes the views.
    """

    def __init__(self, tables: Sequence[pa.Table], backbone: Backbone) -> None:
        regions = pa.concat_tables(tables)
        self.region_ids: list[str] = regions.column("region_id").to_pylist()
        roles, labels = regions.column("role").to_pylist(), regions.column("label").to_pylist()
        self.labels = [label if role == "base" else None for role, label in zip(roles, labels, strict=True)]
        self.scores_N = regions.column("score").to_numpy().astype(np.float32)
        self._images, self._masks = regions.column("image"), regions.column("mask")
        self._backbone = backbone
        self._load_region = lru_cache(maxsize=4096)(self._decode)  # 4096 sub-images of 256 px are 1 GB

    def draw(self, regions_B: Ints, rng: np.random.Generator) -> Ints:
        """Draw a seed for each view."""
        return rng.integers(0, 2**62, (2, len(regions_B)))

    def load(self, regions: Ints, draws_2B: Ints) -> Views:
        """Draw the views of the given seeds and encode them."""
        return Views(*self._encode(_pair(regions, draws_2B)).pack())

    def sample_cls(self) -> Tensor:
        """Encode one view of each of at most 512 novel regions and return the class tokens."""
        novel = [i for i, label in enumerate(self.labels) if label is None]
        chosen = novel[:: max(1, len(novel) // 512)]
        batches = [self._encode([(i, i) for i in chosen[start : start + 32]]) for start in range(0, len(chosen), 32)]
        return torch.cat([batch.cls_BD for batch in batches])

    def _encode(self, views: Sequence[tuple[int, int]]) -> Encoded:
        size = self._backbone.view_size
        drawn = [random_view(*self._load_region(region), np.random.default_rng(seed), size) for region, seed in views]
        return self._backbone.encode(*inputs(self._backbone, drawn))

    def _decode(self, region: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return decode_rgb(self._images[region].as_py()), decode_mask(self._masks[region].as_py())
