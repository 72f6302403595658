"""The report of a run: one HTML file that a quality engineer opens, with nothing to install and nothing to fetch.

The package knows no table and no pipeline: a caller fills `RunReport` with plain values and arrays.
"""

from ancd_ray.jobs.report.figures import embedding_2d
from ancd_ray.jobs.report.model import (
    LEAST_CERTAIN,
    MAX_POINTS,
    MOST_CERTAIN,
    ClassReport,
    ClusterScores,
    Confusion,
    Counts,
    EstimatedNumber,
    GalleryItem,
    ImageScores,
    ProductReport,
    QuarantineGroup,
    RunReport,
    StageTime,
    TokenMap,
    group_quarantine,
)
from ancd_ray.jobs.report.render import render
from ancd_ray.jobs.report.render_sweep import render_sweep
from ancd_ray.jobs.report.sweep_model import LostTrial, Point, SweepReport, SweptProduct
from ancd_ray.jobs.report.thumbnails import thumbnail

__all__ = [
    "LEAST_CERTAIN",
    "MAX_POINTS",
    "MOST_CERTAIN",
    "ClassReport",
    "ClusterScores",
    "Confusion",
    "Counts",
    "EstimatedNumber",
    "GalleryItem",
    "ImageScores",
    "LostTrial",
    "Point",
    "ProductReport",
    "QuarantineGroup",
    "RunReport",
    "StageTime",
    "SweepReport",
    "SweptProduct",
    "TokenMap",
    "embedding_2d",
    "group_quarantine",
    "render",
    "render_sweep",
    "thumbnail",
]
