"""GCD (Vaze et al., CVPR 2022): the last block is fine-tuned by contrast, and its class tokens are clustered.

    L = (1 − λ) L_rep^u + λ L_rep^s,        λ = 0.35

with InfoNCE over all regions and SupCon over labeled ones (eq. 1-3), on projections, at the temperatures 1 and 0.07.
Then semi-supervised k-means (`clusterings/semi_kmeans.py`) on class tokens of unit length, averaged over two views:
labeled regions stay in the clusters of their labels, novel ones may join any. The clusters that no label has are the
classes.

Differences to the original: views of regions from the view bank behind the frozen trunk, whose last block is trained
as there; 50 epochs instead of 200; as many labeled as novel regions in every batch. Known and novel classes are
disjoint here, so a region goes to the novel centroid of the highest cosine, also if that of a known class is nearer.
Each "head" is one start of k-means, and its loss the inertia.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Learner, Outputs
from ancd_ray.discovery.anomalyncd.sources import ViewSource
from ancd_ray.discovery.clusterings.semi_kmeans import fit_semi_kmeans
from ancd_ray.discovery.objectives.base import Epoch, Objective, embed_regions, find_novel
from ancd_ray.discovery.objectives.simgcd import SUPERVISED, TAU_SUPERVISED, TAU_UNSUPERVISED
from ancd_ray.method.losses import info_nce, supcon


class GCD(Objective):
    """See the module."""

    trains_heads = False

    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Compute the contrastive loss; without a base set λ is 0."""
        is_labeled_B = batch.labels_B >= 0
        rep_u = info_nce(found.z_2BP, TAU_UNSUPERVISED)
        rep_s = supcon(found.z_2BP[is_labeled_B.repeat(2)], batch.labels_B[is_labeled_B], TAU_SUPERVISED)
        lam = SUPERVISED if self.classes.n_base else 0.0
        total = (1 - lam) * rep_u + lam * rep_s
        terms = {"rep_u": rep_u, "rep_s": rep_s, "total": total}
        terms["clustering_H"] = total.new_zeros(self.config.heads)
        return total, {name: term.detach() for name, term in terms.items()}

    def finish(self, learner: Learner, source: ViewSource, head_losses: Sequence[float]) -> list[float]:
        """Make the centroids of each start of k-means a head."""
        novel_N = find_novel(source)
        base_N = np.setdiff1d(np.arange(len(source.labels)), novel_N)
        token_ND = embed_regions(learner, source, np.concatenate([novel_N, base_N])).double().cpu().numpy()
        novel_ND, base_ND = token_ND[: len(novel_N)], token_ND[len(novel_N) :]
        of_name = {name: index for index, name in enumerate(self.classes.base_classes)}
        known_N = np.array([of_name[str(source.labels[region])] for region in base_N], np.int64)
        weight_HCD = learner.heads.weight_HCD
        inertias = []
        for head in range(len(weight_HCD)):
            seed = self.config.seed * len(weight_HCD) + head
            inertia, centres_CD = fit_semi_kmeans(novel_ND, base_ND, known_N, self.classes.n_novel, seed)
            inertias.append(inertia)
            with torch.no_grad():
                weight_HCD[head] = torch.from_numpy(centres_CD).to(weight_HCD)
        super().finish(learner, source, head_losses)
        return inertias
