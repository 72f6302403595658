"""AnomalyNCD from the classes of `spectral` on: the objective of the paper with another start (our own).

Heads start at the means of the classes that `spectral` finds in frozen features, instead of random prototypes. Their
mean prediction is drawn to the sizes of these classes instead of equal ones (L_reg of eq. 9 becomes the divergence from
the sizes). Half of the second views are those of a neighbor of the same class, so that pairs of regions are positives
beside pairs of views in eq. 5 and 8. Only the main region of each image is drawn.

Shape suffixes: N regions of a source, M main regions, B regions of a batch, D token width, H heads, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ancd_ray.config.sections import TrainConfig
from ancd_ray.data.roles import Classes
from ancd_ray.discovery.anomalyncd.learner import Learner
from ancd_ray.discovery.anomalyncd.sources import Ints, ViewSource
from ancd_ray.discovery.cluster_regions import cluster_regions
from ancd_ray.discovery.clusterings.spectral import link_neighbors
from ancd_ray.discovery.features.region_features import StoredFeatures
from ancd_ray.discovery.image_scores import ImageScores
from ancd_ray.discovery.main_regions import choose_main_regions
from ancd_ray.discovery.objectives.anomalyncd import AnomalyNCD
from ancd_ray.discovery.objectives.base import Epoch, embed_regions
from ancd_ray.engine.artifacts import Table
from ancd_ray.method.losses import LossWeights

METHOD = "spectral"
_NEAR = 0.5  # share of second views that are of a neighbor
_MOST = 128  # regions of a class of which a prototype is the mean


@dataclass(frozen=True)
class Start:
    """Main regions of images, their classes, and how much they are linked to others of their class.

    Parameters
    ----------
    region_ids
        Ids of the M regions.
    cls_M
        Their novel classes, from 0.
    links_MM
        Shares of the neighbors that are of the same class, by row; a row is empty if there are none.
    """

    region_ids: Sequence[str]
    cls_M: Ints
    links_MM: csr_matrix


class Started(AnomalyNCD):
    """See the module.

    Parameters
    ----------
    config, classes
        See `Objective`.
    start
        Where the training starts.
    """

    def __init__(self, config: TrainConfig, classes: Classes, start: Start) -> None:
        super().__init__(config, classes)
        self._start = start
        self._row_N: Ints = np.empty(0, np.int64)  # the row of each region in `start`, -1 of other ones
        self._region_M: Ints = np.empty(0, np.int64)

    @property
    def sizes(self) -> tuple[float, ...]:
        """Shares of the classes; one without regions counts as if it had one."""
        count_K = np.maximum(np.bincount(self._start.cls_M, minlength=self.classes.n_novel), 1)
        return tuple((count_K / count_K.sum()).tolist())

    def weights(self) -> LossWeights:
        """Return the constants of the objective, with the sizes of the classes."""
        return replace(super().weights(), sizes=self.sizes)

    def choose_drawn(self, source: ViewSource) -> NDArray[np.bool_]:
        """Choose the main regions, and all of the base set."""
        row_of = {region_id: row for row, region_id in enumerate(self._start.region_ids)}
        self._row_N = np.array([row_of.get(region_id, -1) for region_id in source.region_ids], np.int64)
        self._region_M = np.full(len(row_of), -1)
        known = np.flatnonzero(self._row_N >= 0)
        self._region_M[self._row_N[known]] = known
        return np.array([label is not None for label in source.labels]) | (self._row_N >= 0)

    def prepare(self, learner: Learner, source: ViewSource, epoch: Epoch) -> None:
        """Place the prototypes, before the first epoch."""
        if epoch.index == 0:
            self._place_prototypes(learner, source)

    def choose_partners(self, regions_B: Ints, rng: np.random.Generator) -> Ints:
        """Draw a neighbor of its class for half of the regions that have one."""
        links, partner_B = self._start.links_MM, regions_B.copy()
        for index in np.flatnonzero(rng.random(len(regions_B)) < _NEAR):
            row = self._row_N[regions_B[index]]
            first, last = links.indptr[[row, row + 1]] if row >= 0 else (0, 0)
            if first < last:
                partner = self._region_M[rng.choice(links.indices[first:last], p=links.data[first:last])]
                partner_B[index] = partner if partner >= 0 else regions_B[index]
        return np.asarray(partner_B, np.int64)

    @torch.no_grad()
    def _place_prototypes(self, learner: Learner, source: ViewSource) -> None:
        """Set the prototypes of each head to the mean class tokens of the base and novel classes.

        The first head starts at the means of all regions, each other one at those of a random half, so that heads
        differ. Classes without regions keep their random prototypes.
        """
        rng = np.random.default_rng([self.config.seed, 1])
        cls_N = np.where(self._row_N >= 0, self._start.cls_M[self._row_N], -1)
        known = [np.array([label == name for label in source.labels]) for name in self.classes.base_classes]
        members_CN = [*known, *(cls_N == k for k in range(self.classes.n_novel))]
        weight_HCD = learner.heads.weight_HCD
        length = weight_HCD.norm(dim=-1).mean()
        for index, is_member_N in enumerate(members_CN):
            members = np.flatnonzero(is_member_N)
            if not len(members):
                continue
            if len(members) > _MOST:
                members = rng.choice(members, _MOST, replace=False)
            token_MD = embed_regions(learner, source, members)
            for head in range(len(weight_HCD)):
                n_half = (len(members) + 1) // 2
                some = np.arange(len(members)) if head == 0 else rng.choice(len(members), n_half, replace=False)
                weight_HCD[head, index] = F.normalize(token_MD[some].mean(dim=0), dim=0) * length


def find_start(features: Table, classes: Classes, seed: int, scores: ImageScores | None) -> Start:
    """Cluster the main regions of a table `features`; with scores, those of normal images are the first class."""
    stored = StoredFeatures(features)
    found = cluster_regions(stored, None, METHOD, classes, seed, "", scores)
    rows = choose_main_regions(stored.image_N, stored.area_N, stored.score_N)
    ringed_ND = np.concatenate(list(stored.read(found.feature, rows)))
    cls_M = found.predict_probs(ringed_ND, scores.of_regions_NF[rows] if scores else None).argmax(axis=1)
    region_ids = features.read(["region_id"]).column("region_id").take(rows).to_pylist()
    return Start(region_ids, np.asarray(cls_M, np.int64), _link(stored, rows, cls_M))


def _link(stored: StoredFeatures, rows_M: Ints, cls_M: Ints) -> csr_matrix:
    """Link the regions that have views, as they are clustered, to those of their class."""
    viewed = np.flatnonzero(stored.has_views_N[rows_M])
    links = link_neighbors(stored.take(rows_M[viewed], ("views",)).whitened_ND)
    links *= cls_M[viewed][:, None] == cls_M[viewed]
    near, other = np.nonzero(links)
    shares = links[near, other] / links.sum(axis=1)[near]
    return csr_matrix((shares, (viewed[near], viewed[other])), (len(rows_M), len(rows_M)))
