"""Frozen features of a set of regions, for clustering, the number of classes, and the selection of a head.

Shape suffixes: N regions, V views, 2 inside the mask and in the ring around it, D feature width, S shape cues.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Union

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ancd_ray.data.tables import column_to_matrix
from ancd_ray.discovery.features import FEATURES
from ancd_ray.discovery.features.calibration import Calibration, Floats, calibrate, split_rows
from ancd_ray.discovery.features.shape import standardize
from ancd_ray.discovery.features.whitening import average_views, fit_whitening
from ancd_ray.engine.artifacts import Table

_SUFFIXES = {"shape": "NS", "views": "NV2D"}
_SHAPE_WEIGHT = 0.35  # weight of the shape cues, relative to features of length 1


@dataclass(frozen=True)
class RegionFeatures:
    """Features of N regions in memory; those that were not read have a width of 0.

    `labels` are the known classes of a base set. `weight_N` is the number of regions that each row stands for; None if
    it is one. `scales` are those of a larger set that the regions represent; None for their own. `image_N` is the index
    of each region's image, None if each has one of its own, and `area_N` its anomalous pixels. `ringed_ND` and
    `views_NV2D` are None if they were not read; of regions without views, the latter are NaN.
    """

    masked_ND: Floats
    centred_ND: Floats
    top_ND: Floats
    shape_NS: Floats
    score_N: Floats
    widths: tuple[int, ...]
    labels: tuple[str, ...] | None = None
    weight_N: Floats | None = None
    scales: Scales | None = None
    image_N: NDArray[np.int64] | None = None
    area_N: Floats | None = None
    ringed_ND: Floats | None = None
    views_NV2D: Floats | None = None

    def __len__(self) -> int:
        return len(self.masked_ND)

    @property
    def appearance_ND(self) -> NDArray[np.float64]:
        """Calibrated features, averaged inside the mask."""
        return (self.scales or Scales(self)).appearance(self.masked_ND)

    @property
    def appearance_shape_ND(self) -> NDArray[np.float64]:
        """Calibrated features of views without their mean color, averaged inside the mask, and weighted shape cues."""
        return (self.scales or Scales(self)).appearance_shape(self.centred_ND, self.shape_NS)

    @cached_property
    def whitening(self) -> Calibration:
        """Calibration of features less the ring, averaged over views, whitened by what differs between these."""
        assert self.views_NV2D is not None
        return fit_whitening(self.views_NV2D, self.widths)

    @property
    def whitened_ND(self) -> NDArray[np.float64]:
        """Whitened features, averaged over views."""
        assert self.views_NV2D is not None
        return self.whitening.apply(average_views(self.views_NV2D))

    @property
    def has_views_N(self) -> NDArray[np.bool_]:
        """Whether each region has views."""
        if self.views_NV2D is None:
            return np.zeros(len(self), bool)
        return ~np.isnan(self.views_NV2D[:, 0, 0, 0])

    def read(self, name: str, rows_R: NDArray[np.int64] | None = None) -> Iterator[Floats]:
        """Read one of `FEATURES`, or `ringed`, of some rows in increasing order (None: of all), some rows at a time."""
        values = vars(self)[_field(name)]
        yield from split_rows(values if rows_R is None else values[rows_R])

    def take(self, rows: Any, names: Sequence[str] = FEATURES) -> RegionFeatures:  # noqa: ARG002
        """Select some of the regions; all features are in memory, so that `names` has no effect."""
        arrays = {
            name: value[rows]
            for name, value in vars(self).items()
            if name.endswith(("_ND", "_NS", "_N", "_NV2D")) and value is not None
        }
        return replace(self, **arrays)


class StoredFeatures:
    """Features of the N regions of a table `features`, of which only the columns and rows that are used are read."""

    def __init__(self, features: Table) -> None:
        self._features = features
        self.widths: tuple[int, ...] = tuple(features.values["widths"])

    @cached_property
    def score_N(self) -> Floats:
        """Scores of the regions."""
        return np.asarray(self._features.read(["score"]).column("score").to_numpy())

    @cached_property
    def image_N(self) -> NDArray[np.int64]:
        """Indices of the images of the regions."""
        images = self._features.read(["image_id"]).column("image_id").combine_chunks()
        return np.asarray(images.dictionary_encode().indices.to_numpy(), np.int64)

    @cached_property
    def area_N(self) -> Floats:
        """Anomalous pixels of the regions."""
        return np.asarray(self._features.read(["area"]).column("area").to_numpy())

    @cached_property
    def has_views_N(self) -> NDArray[np.bool_]:
        """Whether each region has views."""
        return np.asarray(self._features.read(["views"]).column("views").is_valid())

    def __len__(self) -> int:
        return self._features.num_rows

    def read(self, name: str, rows_R: NDArray[np.int64] | None = None) -> Iterator[Floats]:
        """Read one of `FEATURES`, or `ringed`, of some rows in increasing order (None: all), in single precision."""
        for table, here in self._read_parts([name], rows_R):
            yield column_to_matrix(table.column(name))[here]

    def take(self, rows: NDArray[np.int64], names: Sequence[str] = FEATURES) -> RegionFeatures:
        """Read some of the regions, in increasing order, and of these the features `names`.

        They are of `FEATURES`, or `ringed`, or `views`, which are NaN of regions that have none.
        """
        found: dict[str, list[Any]] = {name: [] for name in (*names, "score")}
        for table, here in self._read_parts(list(found), rows):
            for name, blocks in found.items():
                blocks.append(self._read_column(table.column(name), name, here))
        arrays: dict[str, Any] = {_field(name): np.concatenate(found[name]) for name in names if name != "views"}
        if "views" in names:
            arrays[_field("views")] = decode_views([data for part in found["views"] for data in part], sum(self.widths))
        absent: dict[str, Any] = {
            _field(name): np.empty((len(rows), 0), np.float32) for name in FEATURES if name not in names
        }
        return RegionFeatures(
            **arrays,
            **absent,
            score_N=np.concatenate(found["score"]),
            widths=self.widths,
            image_N=self.image_N[rows],
            area_N=self.area_N[rows],
        )

    def _read_column(self, column: pa.ChunkedArray, name: str, here: Any) -> Any:
        if name == "views":
            return column.take(np.arange(len(column))[here]).to_pylist()
        return (column.to_numpy() if name == "score" else column_to_matrix(column))[here]

    def _read_parts(self, names: list[str], rows_R: NDArray[np.int64] | None) -> Iterator[tuple[pa.Table, Any]]:
        """Read the parts that have some of the rows, or the first part if there are none, and where they are in it."""
        start = 0
        for index, part in enumerate(self._features.parts):
            here: Any = slice(None)
            if rows_R is not None:
                here = rows_R[np.searchsorted(rows_R, start) : np.searchsorted(rows_R, start + part.rows)] - start
            start += part.rows
            if part.rows and (rows_R is None or len(here) or (not index and not len(rows_R))):
                yield self._features.read_part(part, names), here


Features = Union[RegionFeatures, StoredFeatures]  # noqa: UP007  (a runtime alias on Python 3.10)


class Scales:
    """Scales of a set of regions, by which these or other regions are put into the spaces of clusterings.

    Each is computed when it is used first.
    """

    def __init__(self, features: Features) -> None:
        self._features = features

    @cached_property
    def masked(self) -> Calibration:
        """Calibration of the features that are averaged inside the mask."""
        return Calibration.fit_blocks(lambda: self._features.read("masked"), self._features.widths)

    @cached_property
    def _centred(self) -> Calibration:
        return Calibration.fit_blocks(lambda: self._features.read("centred"), self._features.widths)

    @cached_property
    def _shape_NS(self) -> Floats:
        return np.concatenate(list(self._features.read("shape")))

    def appearance(self, masked_ND: Floats) -> NDArray[np.float64]:
        """Calibrate features (N, D), averaged inside the mask."""
        return self.masked.apply(masked_ND)

    def appearance_shape(self, centred_ND: Floats, shape_NS: Floats) -> NDArray[np.float64]:
        """Calibrate features (N, D) of views without their mean color, and append weighted shape cues (N, S)."""
        cues_NS = _SHAPE_WEIGHT * standardize(shape_NS, self._shape_NS)
        return np.concatenate([self._centred.apply(centred_ND), cues_NS], axis=1)


def decode_views(encoded: Sequence[bytes | None], width: int) -> NDArray[np.float16]:
    """Decode a column `views` to an array (N, V, 2, width); regions without views are NaN."""
    sizes = {len(data) for data in encoded if data is not None}
    shape = (max(sizes, default=0) // (4 * width), 2, width)
    nothing = np.full(shape, np.nan, np.float16)
    found = [nothing if data is None else np.frombuffer(data, np.float16).reshape(shape) for data in encoded]
    return np.array(found, np.float16).reshape(len(encoded), *shape)


def read_base_features(features: Table) -> RegionFeatures:
    """Read all features of a labeled base set."""
    found = StoredFeatures(features).take(np.arange(features.num_rows))
    return replace(found, labels=tuple(features.read(["label"]).column("label").to_pylist()))


def average_features(
    features: Features, rows_R: NDArray[np.int64], labels_R: NDArray[np.int64], names: Sequence[str], scales: Scales
) -> RegionFeatures:
    """Average regions by label: one row for each label 0 … M - 1, with the number of its regions as weight.

    Parameters
    ----------
    features
        Features of all regions.
    rows_R
        Rows of the regions that have a label, in increasing order.
    labels_R
        Their labels.
    names
        The `FEATURES` to average.
    scales
        Scales of the result.
    """
    weight_M = np.bincount(labels_R).astype(np.float64)

    def average(blocks: Iterable[Floats]) -> Floats:
        total_MD, start = np.zeros((len(weight_M), 1)), 0
        for block_ND in blocks:
            labels_N = labels_R[start : start + len(block_ND)]
            start += len(block_ND)
            members_NM = csr_matrix(
                (np.ones(len(labels_N)), labels_N, np.arange(len(labels_N) + 1)), (len(labels_N), len(weight_M))
            )
            total_MD = total_MD + members_NM.T @ block_ND
        return np.asarray(total_MD / weight_M[:, None], np.float32)

    plain = features.take(rows_R[:0], names)
    arrays: dict[str, Any] = {_field(name): average(features.read(name, rows_R)) for name in names}
    score_M = average([features.score_N[rows_R, None]])[:, 0]
    whole: dict[str, Any] = {"image_N": None, "area_N": None}
    return replace(plain, **arrays, **whole, score_N=score_M, weight_N=weight_M, scales=scales)


def read_comparison_features(features: Table, rows_M: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Read the features by which classes are compared: of views without their mean color, averaged inside the mask.

    Parameters
    ----------
    features
        A table `features`.
    rows_M
        Rows in increasing order; None for all. The table is read part by part, and other rows are dropped.

    Returns
    -------
    Calibrated features (M, D).
    """
    blocks = StoredFeatures(features).read("centred", rows_M)
    return calibrate(np.concatenate(list(blocks)), features.values["widths"])


def one_hot(labels_N: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Convert cluster labels to one-hot probabilities (N, K)."""
    return np.eye(n_classes, dtype=np.float32)[labels_N]


def _field(name: str) -> str:
    """Return the name of the array of a feature."""
    return f"{name}_{_SUFFIXES.get(name, 'ND')}"
