"""The report of a run or a sweep: a self-contained HTML file that needs no installation and no network.

Except for `build`, the package does not depend on tables or the pipeline: a caller fills `RunReport` or `SweepReport`
with plain values and arrays, and `render` or `render_sweep` returns the HTML.
"""

from ancd_ray.jobs.report.detector_model import DetectorReport, ImageScores, UsualScores, WorstImage
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
    ProductReport,
    QuarantineGroup,
    RunReport,
    StageTime,
    TokenMap,
    count_points,
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
    "DetectorReport",
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
    "UsualScores",
    "WorstImage",
    "count_points",
    "embedding_2d",
    "group_quarantine",
    "render",
    "render_sweep",
    "thumbnail",
]
