"""AnomalyNCD (Section III-C3, eq. 4-9): the objective of the paper, of which `method/losses.py` has the terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ancd_ray.config.sections import TrainConfig
from ancd_ray.data.roles import Classes
from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Learner, Outputs
from ancd_ray.discovery.anomalyncd.sources import ViewSource
from ancd_ray.discovery.objectives.base import Epoch, Objective
from ancd_ray.method.losses import LossWeights, total_loss
from ancd_ray.method.pseudo_labels import teacher_temperature


class AnomalyNCD(Objective):
    """See the module."""

    def loss(self, found: Outputs, batch: BatchLabels, epoch: Epoch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the objective of eq. 9."""
        return total_loss(
            found.z_2BP,
            found.logits_H2BC,
            batch.labels_B,
            batch.normal_weight_B,
            n_base=self.classes.n_base,
            teacher_temp=teacher_temperature(epoch.index, epoch.count),
            weights=self.weights(),
        )

    def weights(self) -> LossWeights:
        """Return the constants of the objective."""
        return loss_weights(self.config, self.classes)

    def finish(self, learner: Learner, source: ViewSource, head_losses: Sequence[float]) -> list[float]:  # noqa: ARG002
        """Do nothing: the corrected pseudo labels have told the normal class."""
        return list(head_losses)


def loss_weights(config: TrainConfig, classes: Classes) -> LossWeights:
    """Return the constants of the objective; without a base set the weight of the supervised terms is 0."""
    weights = LossWeights(
        lam=config.lambda_ if classes.n_base else 0.0, mu=config.mu, novel_only=config.regularize == "novel"
    )
    return replace(weights, tau_rep_unsup=0.07, tau_rep_sup=1.0) if config.temperatures == "paper" else weights
