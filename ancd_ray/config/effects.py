"""Rules for keys of a job that have no effect, given its other keys.

Stages are built from sections in which such keys are reset to their defaults. The keys then change no fingerprint and
trigger no computation, and a sweep over one of them is rejected because it changes no result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ancd_ray.config.base import reset_keys
from ancd_ray.config.job import Job
from ancd_ray.config.sections import TrainConfig


@dataclass(frozen=True)
class Situation:
    """A job and the properties of a product that decide which keys have an effect."""

    job: Job
    maps_are_masks: bool
    has_base: bool
    has_normal: bool


# Keys of `train` that are of the paper's objective.
_CONSTANTS = ("lambda_", "mu", "temperatures", "regularize", "correction", "start")
RULES: tuple[tuple[tuple[str, ...], Callable[[Situation], bool]], ...] = (
    # Masks are not binarized.
    (
        tuple(
            f"mebin.{key}"
            for key in (
                *("binarize", "threshold", "levels", "min_run", "erosion_px"),
                *("count_rule", "erode", "range", "floor", "keep"),
            )
        ),
        lambda s: s.maps_are_masks,
    ),
    (("mebin.threshold",), lambda s: s.job.mebin.binarize != "fixed"),
    (
        tuple(f"mebin.{key}" for key in ("levels", "min_run", "erosion_px", "count_rule", "erode")),
        lambda s: s.job.mebin.binarize not in ("auto", "mebin"),
    ),
    (("mebin.floor",), lambda s: s.job.mebin.range != "measured"),
    (
        tuple(f"mebin.{key}" for key in ("padding", "min_crop", "merge_gap", "relative_to", "max_enlargement", "keep")),
        lambda s: s.job.mebin.crop == "image",
    ),
    (("backbone.mask_layers",), lambda s: s.job.backbone.name == "lite"),  # it has one block
    (("backbone.ring",), lambda s: s.job.discovery.method != "anomalyncd" or s.job.backbone.mask != "class"),
    (("train.lambda_", "train.views.base", "train.regularize"), lambda s: not s.has_base),
    (("train.regularize",), lambda s: s.job.train.start != "random"),  # it has the sizes of the classes
    (("train.correction",), lambda s: not s.has_normal),
    # The other trainings have the constants that their authors published.
    (tuple(f"train.{key}" for key in _CONSTANTS), lambda s: s.job.discovery.method != "anomalyncd"),
    (("discovery.symmetry",), lambda s: not s.job.averages_views),
    (("merge.tau_alpha",), lambda s: s.job.merge.rule != "paper"),
)


def describe_unread(job: Job) -> list[str]:
    """Describe in a line what the job says that its method of discovery does not read."""
    method, fields = job.discovery, TrainConfig.model_fields
    given = sorted(job.train.model_fields_set - {"seed"})  # clusterings have seeds, too
    if method.trains:
        given = [key for key in given if key in _CONSTANTS and method.method != "anomalyncd"]
    keys = [f"train.{fields[key].alias or key}" for key in given]
    if job.data.base and not method.reads_base:
        keys.append("data.base")
    if not keys:
        return []
    return [f"{', '.join(keys)}: not read by discovery.method={method.method}, but by anomalyncd, the paper's training"]


def reset_unused(situation: Situation) -> Job:
    """Set every key of a job that has no effect on a product to its default."""
    job = situation.job
    for keys, is_unused in RULES:
        if is_unused(situation):
            job = reset_keys(job, *keys)
    return job
