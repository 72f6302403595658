"""Data sets of `quality.py`: the stages of a job up to the features of regions, and samples of the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from quality_methods import Sample

from ancd_ray.config.load import load
from ancd_ray.data.roles import GOOD
from ancd_ray.data.store import Folder
from ancd_ray.discovery.features import FEATURES, VIEW_FEATURES
from ancd_ray.discovery.features.region_features import RegionFeatures, StoredFeatures
from ancd_ray.discovery.image_scores import ImageScores
from ancd_ray.discovery.normal_curve import IMAGE_FIGURES, stack_figures
from ancd_ray.engine.artifacts import Table
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make

STEPS = ("catalog", "fit_detector", "calibrate", "detect", "score_maps", "regions", "score_regions", "encode")
OF_MAPS = ("fit_detector", "calibrate", "detect")
ROLES = ("regions", "features", "maps", "normal_scores", "map_scores", "region_scores")
WITH_NORMALS = ("mtd", "pcb", "goggles", "lpbf", "mpdd_plate")
SAMPLES, SHARE = 4, 0.8


class Set(NamedTuple):
    """A data set with some settings of the job: folders of the steps that make `ROLES`, and seconds of its maps."""

    name: str
    settings: str
    folders: Mapping[str, str]
    seconds: float

    def read_values(self, role: str) -> Mapping[str, Any]:
        """Read the figures of the step that makes an artifact."""
        return _find(self, role).values


def encode_sets(
    path: Path, root: str, output: Path, names: Sequence[str] | None, maps: bool, settings: Sequence[str]
) -> list[Set]:
    """Run the stages up to the features.

    Parameters
    ----------
    path
        Job file.
    root
        Folder of the data sets.
    output
        Folder of the steps.
    names
        Names of the sets; None for all, with maps for those that have normal images.
    maps
        Whether there are anomaly maps in place of masks, and normal images among the others.
    settings
        Keys and values that differ from the job file.
    """
    overrides = [f"data.root={Path(root).absolute()}", f"output={output.absolute()}"]
    job = load(path, overrides)
    if maps:
        normal_too = [f"data.products.{index}.exclude=[]" for index in range(len(job.data.products))]
        job = load(path, [*overrides, *normal_too, "detector={name: patchcore}", *settings])
        names = names or WITH_NORMALS
    products = tuple(product for product in job.data.products if not names or product.name in names)
    plan = make(job.model_copy(update={"data": job.data.model_copy(update={"products": products})}))
    steps = [step for step in plan.steps if step.name in STEPS]
    display = Display("quality")
    resources = job.resources
    with display.running(), Runtime(in_process_below=resources.in_process_below) as runtime:
        done = run_steps(steps, plan.root, runtime, display, resources.max_quarantined)
    made = {product.name: product.flow.artifacts for product in plan.products}
    return [
        Set(
            name,
            " ".join(settings),
            {role: str(made[name][role].step.folder(plan.root)) for role in ROLES if role in made[name]},
            sum(done[step.fingerprint].seconds for step in steps if step.product == name and step.name in OF_MAPS),
        )
        for name in made
    ]


def read_samples(found: Set, maps: bool) -> Iterator[Sample]:
    """Read a set, and draw the samples."""
    table = read_table(found, "features")
    stored = StoredFeatures(table)
    every: RegionFeatures = stored.take(np.arange(len(stored)), (*FEATURES, *VIEW_FEATURES))
    rows = table.read(["region_id", "image_id", "label"])
    region_ids = np.asarray(rows.column("region_id"))
    ids, first_I, image_N = np.unique(np.asarray(rows.column("image_id")), return_index=True, return_inverse=True)
    label_I = np.array([label or GOOD for label in rows.column("label").to_pylist()])[first_I]
    if maps:
        scored = read_table(found, "maps").read(["image_id", *IMAGE_FIGURES])
        figures_IF = stack_figures(scored)[
            pc.index_in(pa.array(ids), scored.column("image_id").combine_chunks()).to_numpy()
        ]
        known_MF = stack_figures(read_table(found, "normal_scores").read([*IMAGE_FIGURES]))
    for number in range(SAMPLES + 1):
        is_kept_I = np.ones(len(ids), bool)
        if number:
            is_kept_I = np.random.default_rng(number).permutation(len(ids)) < round(SHARE * len(ids))
        kept = np.flatnonzero(is_kept_I[image_N])
        some = replace(every.take(kept), image_N=np.unique(image_N[kept], return_inverse=True)[1])
        scores = None
        if maps:
            scores = ImageScores(figures_IF[is_kept_I], figures_IF[image_N[kept]], known_MF)
        yield Sample(some, label_I[is_kept_I], scores, region_ids[kept])


def read_table(found: Set, role: str) -> Table:
    """Read a table of a set, whose step is finished."""
    return Table(_find(found, role), role)


def _find(found: Set, role: str) -> Output:
    output = Output.find(Folder(found.folders[role]))
    assert output, "the step is finished"
    return output
