"""A step: a piece of work with one result, and the fingerprint under which the result is kept.

A fingerprint is the digest of a step's name, its version, its slice of the job, and the fingerprints of its inputs. The
same fingerprint is the same result; whatever else changes in the job does not touch it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from ancd_ray.data.store import Folder, digest
from ancd_ray.engine.context import Context
from ancd_ray.engine.outputs import Result
from ancd_ray.stages import catalog

# Raised by whoever changes what a step computes: its results so far, and all that follow from them, are then stale.
VERSIONS = {
    "catalog": 1,
    "fit_detector": 1,
    "detect": 1,
    "score_maps": 1,
    "regions": 2,
    "views": 1,
    "describe": 2,
    "count_classes": 2,
    "cluster": 2,
    "clean_views": 1,
    "train": 2,
    "classify": 3,
    "merge": 2,
    "evaluate": 2,
}


@dataclass(frozen=True)
class Step:
    """A piece of work with one result; `inputs` are the steps that it reads, under the names it knows them by."""

    name: str
    product: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Step]
    run: Callable[[Context], Result] = field(compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that the result depends on."""
        inputs = {name: step.fingerprint for name, step in self.inputs.items()}
        return digest([self.name, self.product, VERSIONS[self.name], self.config, inputs])[:16]

    def without_listing(self) -> Step:
        """The same step for another process, without the listing of the archive that its catalog would start from."""
        inputs = {name: step.without_listing() for name, step in self.inputs.items()}
        if self.name != "catalog":
            return replace(self, inputs=inputs)
        return replace(self, run=partial(catalog.run, rows=()))

    def folder(self, root: Folder) -> Folder:
        """Where its result is kept."""
        return root / "steps" / self.name / f"{self.product}-{self.fingerprint}"
