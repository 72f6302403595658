"""Count classes: the number of classes where nobody knows it (`classes.novel: auto`), with its curve and confidence."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from ancd_ray.discovery.class_number import estimate
from ancd_ray.discovery.clusterings.algorithms import calibrated
from ancd_ray.discovery.features.reading import described, taken
from ancd_ray.engine.context import Context, StageError
from ancd_ray.engine.outputs import Result

_SAMPLE = 2000  # regions that are looked at
DOUBTFUL = 0.5  # confidence below which a warning is given


def run(context: Context, at_most: int, has_normal: bool) -> Result:
    """Values `n_classes`, `confidence`, `numbers`, `silhouette`, `stability` and, where there is doubt, `warning`.

    Raises:
        StageError: there are too few regions to tell.
    """
    regions = described(context.inputs["describe"])
    if len(regions) > _SAMPLE:
        regions = taken(regions, np.linspace(0, len(regions) - 1, _SAMPLE).astype(int))
    try:
        found = estimate([calibrated(regions.centred_ND, regions.widths), regions.look_ND], at_most)
    except ValueError as error:
        raise StageError(f"product {context.product}: {error}; set classes.novel") from error
    values = asdict(found)
    what = "classes, the normal one included" if has_normal else "classes"
    context.progress.note(f"{found.n_classes} {what}, confidence {found.confidence:.0%}")
    if found.confidence < DOUBTFUL:
        values["warning"] = (
            f"{found.n_classes} classes were estimated, but only {found.confidence:.0%} of the resamples agree; "
            "look at the curve, or set classes.novel"
        )
    return Result({}, values)
