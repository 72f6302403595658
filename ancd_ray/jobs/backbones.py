"""Backbones that a job needs, loaded before hours of other work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ancd_ray.config.errors import first_line
from ancd_ray.config.load import JobError
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.engine.status import list_unfinished

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone
    from ancd_ray.jobs.plan import JobPlan


def check_backbones(plan: JobPlan) -> None:
    """Load the backbones of a discovery, if a step needs them.

    Raises
    ------
    JobError
        A backbone is unavailable.
    """
    if list_unfinished([step for step in plan.steps if step.stage.resources == "model"], plan.root):
        for config in {product.job.backbone for product in plan.products}:
            load_backbone(config)


def load_backbone(config: BackboneConfig) -> Backbone:
    """Load a backbone, once per process.

    Raises
    ------
    JobError
        It is unavailable.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    from ancd_ray.backbones.loaded import load_cached

    try:
        return load_cached(config)
    except ValueError as error:
        raise JobError(str(error)) from error
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        raise JobError(f"backbone.weights: cannot read {config.weights}: {first_line(error)}") from error
