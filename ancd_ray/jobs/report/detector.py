"""What a report shows of a detector: its figures in words, the drawings, and the number of pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import chain

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ancd_ray.jobs.report.detector_model import DetectorReport, ImageScores, UsualScores, WorstImage
from ancd_ray.jobs.report.figures import ANOMALOUS, INK, LEGEND, NEUTRAL, NORMAL, with_axes
from ancd_ray.jobs.report.gallery import estimate_size
from ancd_ray.jobs.report.thumbnails import thumbnail
from ancd_ray.jobs.report.wording import Figure

BINS = 40
END_OF_NORMAL = 0.99  # quantile of the scores of normal images
FEW = 20  # of fewer, the highest score
PICTURE_SIDE = 224  # pixels; shown as 168
PICTURES = (6, 3, 1)  # of either kind, of a product
PICTURE_BUDGET = 1_500_000  # bytes of base64, of all products


def find_end(normal: UsualScores) -> float:
    """Return the score where normal ends: the 99 % quantile, or of few images the highest score."""
    quantile = END_OF_NORMAL if len(normal.values) >= FEW else 1.0
    return float(np.quantile(normal.values, quantile))


def describe_scores(detector: DetectorReport) -> str | None:
    """Say how many images score higher than normal ones; None without a calibration."""
    usual, scores = detector.usual, detector.scores
    if usual is None:
        return None
    n = len(usual.values)
    if not usual.are_normal:
        return (
            f"No image is known to be normal, so {n} of these images, drawn at random and each scored without itself, "
            f"stand for what is usual: half of them score below {np.median(usual.values):.3g}. If most parts are "
            "sound, the images far to the right of the bulk are the defects."
        )
    above = scores.values > find_end(usual)
    share = "99\N{NBSP}% of" if n >= FEW else "all of"
    told = (
        f"{above.sum():,} of {len(above):,} images score higher than {share} {n} normal images, each scored as if the "
        "detector had not seen it"
    )
    if scores.is_anomalous is not None:
        bad = scores.is_anomalous
        groups = [(bad, "defects"), (~bad, "good images")]
        counts = [f"{above[group].sum():,} of {group.sum():,} {name}" for group, name in groups if group.any()]
        told += f"; by the labels these are {' and '.join(counts)}"
    return told + "."


def describe_regions(detector: DetectorReport) -> str | None:
    """Say how what was marked compares with what was drawn; None without masks."""
    if detector.iou is None or detector.area_ratio is None:
        return None
    iou, ratio = detector.iou, detector.area_ratio
    size = "of the size of" if 0.8 <= ratio[1] <= 1.25 else "smaller than" if ratio[1] < 1 else "larger than"
    images = f"the {detector.compared:,} images with a mask" if detector.compared > 1 else "the only image with a mask"
    return (
        f"What was marked is mostly {size} what was drawn. In the middle half of {images}, the marked area is "
        f"{ratio[0]:.2g} to {ratio[2]:.2g} times the drawn one, and the overlap (IoU) is {iou[0]:.2f} to {iou[2]:.2f}."
    )


def figures_of(detector: DetectorReport) -> list[Figure]:
    """List the metrics that are known."""
    iou, ratio = detector.iou, detector.area_ratio
    figures = [
        Figure(
            "AUROC",
            "How often a defect scores higher than what is sound: 0.5 by chance, 1 always.",
            "",
            tuple(
                (level, value)
                for level, value in (("images", detector.image_auroc), ("pixels", detector.pixel_auroc))
                if value is not None
            ),
        ),
        Figure(
            "AUPRO",
            "How much of every defect, small ones too, the maps cover before 30 % of sound pixels are marked.",
            "",
            (("pixels", detector.aupro),),
        ),
        Figure(
            "IoU",
            "Overlap of what was marked and what was drawn: 0 none, 1 the same.",
            "",
            (("median", iou[1] if iou else None),),
        ),
        Figure(
            "Marked / drawn area",
            "1 is the same size; more is marked too much, less too little.",
            "",
            (("median", ratio[1] if ratio else None),),
        ),
    ]
    return [figure for figure in figures if figure.known]


def draw_scores(scores: ImageScores, usual: UsualScores | None = None) -> go.Figure:
    """Draw a histogram of images by anomaly score, as shares of their group; `customdata` has the counts."""
    values = np.asarray(scores.values, np.float64)
    finite = np.isfinite(values)
    edges = np.histogram_bin_edges(np.append(values[finite], usual.values if usual else []), BINS)
    if scores.is_anomalous is None:
        groups = [("images", NEUTRAL, finite)]
    else:
        anomalous = np.asarray(scores.is_anomalous, bool)
        groups = [("good", NORMAL, finite & ~anomalous), ("defects", ANOMALOUS, finite & anomalous)]
    figure = go.Figure()
    highest = 0.0
    for name, colour, chosen in groups:
        counts, shares = _count(values[chosen], edges)
        highest = max(highest, shares.max())
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=shares,
            width=np.diff(edges),
            name=name,
            customdata=counts,
            marker={"color": colour, "opacity": 0.6, "line": {"width": 0}},
            hovertemplate="score %{x:.3g}: %{customdata} images, %{y:.1f} %<extra>" + name + "</extra>",
        )
    if usual:
        _add_usual(figure, usual, edges, highest)
    layout = {"barmode": "overlay", "bargap": 0, "showlegend": len(figure.data) > 1, "legend": LEGEND}
    return with_axes(figure, "anomaly score of the image", "% of its images", **layout)


def _count(values: NDArray[np.floating], edges: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    counts, _ = np.histogram(values, edges)
    return counts, 100 * counts / max(len(values), 1)


def _add_usual(figure: go.Figure, usual: UsualScores, edges: NDArray[np.floating], highest: float) -> None:
    """Add the outline of the histogram of usual scores, and lines at their median and where normal ends."""
    name = "normal, for comparison" if usual.are_normal else "sample, for comparison"
    counts, shares = _count(usual.values, edges)
    figure.add_scatter(
        x=np.repeat(edges, 2),
        y=np.concatenate([[0], np.repeat(shares, 2), [0]]),
        mode="lines",
        name=name,
        customdata=np.concatenate([[0], np.repeat(counts, 2), [0]]),
        line={"color": INK, "width": 1.5},
        hovertemplate="%{customdata} images, %{y:.1f} %<extra>" + name + "</extra>",
    )
    lines = [("half of it", float(np.median(usual.values)), "dot")]
    if usual.are_normal:  # a sample may end with defects
        lines.append(("99 % of it" if len(usual.values) >= FEW else "all of it", find_end(usual), "dash"))
    for label, score, dash in lines:
        figure.add_scatter(
            x=[score, score],
            y=[0, max(highest, shares.max())],
            mode="lines",
            name=label,
            line={"color": INK, "width": 1.5, "dash": dash},
            hovertemplate=f"{label} below %{{x:.3g}}<extra></extra>",
        )


def draw_pro(fpr: Sequence[float], pro: Sequence[float]) -> go.Figure:
    """Draw the curve of per-region overlap."""
    figure = go.Figure()
    figure.add_scatter(
        x=100 * np.asarray(fpr),
        y=100 * np.asarray(pro),
        mode="lines",
        line={"color": NEUTRAL, "width": 2},
        fill="tozeroy",
        hovertemplate="%{x:.1f} % of sound pixels marked, %{y:.0f} % of a defect<extra></extra>",
    )
    figure = with_axes(figure, "% of sound pixels marked", "% of a defect marked", showlegend=False)
    return figure.update_layout(xaxis_range=[0, 100 * max(fpr)], yaxis_range=[0, 101])


def encode_picture(image: WorstImage) -> str:
    """Encode the picture of an image, with the outlines of what was marked and drawn, as a data URI."""
    webp = thumbnail(image.image, image.found, PICTURE_SIDE, image.drawn)
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def count_pictures(detectors: Sequence[DetectorReport], budget: int = PICTURE_BUDGET) -> int:
    """Choose how many missed defects, and false alarms, of each product are shown; none if even one is too much."""
    for n in PICTURES:
        shown = list(chain.from_iterable((*each.missed[:n], *each.alarms[:n]) for each in detectors))
        if estimate_size(shown, encode_picture) <= budget:
            return n
    return 0
