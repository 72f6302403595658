"""Count classes: estimates the number of classes (`classes.novel: auto`), with its range, curves and confidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from ancd_ray.data.roles import describe_number
from ancd_ray.engine.artifacts import Figures, Table
from ancd_ray.engine.context import Context, StageError
from ancd_ray.engine.outputs import Result
from ancd_ray.engine.stage import Stage

_SAMPLE = 2000  # maximum number of main regions that are used
DOUBTFUL = 0.5  # confidence below which a warning is given


@dataclass(frozen=True)
class CountClasses(Stage):
    """Estimates the number of classes, from 2 to `max_classes`."""

    name: ClassVar[str] = "count_classes"
    version: ClassVar[int] = 5

    @dataclass(frozen=True)
    class In:
        """Artifacts that the stage reads, by role."""

        features: Table

    class Out:
        """Artifacts that the stage makes, by role."""

        class_count: Figures

    max_classes: int
    has_normal: bool

    def run(self, context: Context, inputs: In) -> Result:
        """Compute the fields of `ClassNumber` and, if it is uncertain, `warning`.

        Raises
        ------
        StageError
            There are too few regions.
        """
        from ancd_ray.discovery.class_number import estimate_class_number
        from ancd_ray.discovery.features.calibration import calibrate
        from ancd_ray.discovery.features.region_features import StoredFeatures
        from ancd_ray.discovery.main_regions import choose_main_regions

        stored = StoredFeatures(inputs.features)
        main = choose_main_regions(stored.image_N, stored.area_N, stored.score_N)
        main = np.arange(len(stored)) if len(main) <= self.max_classes else main  # fewer images than classes
        rows = main[np.linspace(0, len(main) - 1, min(len(main), _SAMPLE)).astype(int)]
        regions = stored.take(rows, ("centred", "shape"))
        sets = [calibrate(regions.centred_ND, regions.widths), regions.appearance_shape_ND]
        try:
            found = estimate_class_number(sets, self.max_classes)
        except ValueError as error:
            raise StageError(f"product {context.product}: {error}; set classes.novel") from error
        values = asdict(found)
        what = "classes, the normal one included" if self.has_normal else "classes"
        number = describe_number(found.low, found.high)
        taken = f", {found.n_classes} taken" if found.low < found.high else ""
        context.progress.note(f"{number} {what}{taken}, confidence {found.confidence:.0%}")
        if found.confidence < DOUBTFUL:
            values["warning"] = (
                f"{number} classes were estimated, but only {found.confidence:.0%} of the resamples agree; "
                "look at the curves, or set classes.novel"
            )
        return Result({}, values)
