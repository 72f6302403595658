"""What a report says of a detector: where normal ends, how large regions are, which images are the worst."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from page import Page
from sample_report import png, run_of, without_labels, worst

from ancd_ray.jobs.report import DetectorReport, ImageScores, ProductReport, UsualScores, render, thumbnail
from ancd_ray.jobs.report.detector import (
    count_pictures,
    describe_regions,
    describe_scores,
    draw_pro,
    draw_scores,
    encode_picture,
    figures_of,
)
from ancd_ray.jobs.report.thumbnails import CONTOUR_BGR, DRAWN_BGR

NORMAL = UsualScores(np.arange(100.0), are_normal=True)  # 99 % are below 98.01


def counts(figure: Any) -> dict[str, int]:
    return {trace.name: int(np.sum(trace.customdata)) for trace in figure.data if trace.type == "bar"}


def test_a_histogram_counts_every_image_that_has_a_score() -> None:
    values = np.array([0.1, 0.2, 0.2, np.nan, 0.9, np.inf])
    assert counts(draw_scores(ImageScores(values))) == {"images": 4}
    anomalous = np.array([False, False, True, True, True, False])
    figure = draw_scores(ImageScores(values, anomalous), UsualScores(np.array([0.0, 0.1]), are_normal=True))
    assert counts(figure) == {"good": 2, "defects": 2}
    assert [np.sum(trace.y) for trace in figure.data if trace.type == "bar"] == pytest.approx([100, 100])


@pytest.mark.parametrize("values", [np.zeros(0), np.full(7, 3e8, np.float32), np.array([np.nan])])
def test_a_histogram_of_hardly_anything(values: np.ndarray) -> None:
    assert counts(draw_scores(ImageScores(values))) == {"images": int(np.isfinite(values).sum())}


def test_lines_show_where_normal_ends() -> None:
    figure = draw_scores(ImageScores(np.array([1.0, 300.0])), NORMAL)
    lines = {trace.name: trace.x[0] for trace in figure.data if trace.type == "scatter"}
    assert lines["half of it"] == 49.5
    assert lines["99 % of it"] == pytest.approx(98.01)
    assert lines["normal, for comparison"] == 0, "bins reach over both"


def test_scores_are_told_against_normal_images() -> None:
    scores = ImageScores(np.array([1.0, 98.0, 99.0, 150.0]), np.array([False, False, False, True]))
    told = describe_scores(DetectorReport(scores, NORMAL))
    assert told == (
        "2 of 4 images score higher than 99\N{NBSP}% of 100 normal images, each scored as if the detector had not seen "
        "it; by the labels these are 1 of 1 defects and 1 of 3 good images."
    )
    few = describe_scores(DetectorReport(scores, UsualScores(np.array([1.0, 98.5]), are_normal=True)))
    assert few is not None
    assert few.startswith("2 of 4 images score higher than all of 2 normal images")
    assert describe_scores(DetectorReport(scores)) is None


def test_a_sample_of_the_images_is_not_called_normal() -> None:
    told = describe_scores(DetectorReport(ImageScores(np.ones(3)), UsualScores(np.ones(30), are_normal=False)))
    assert told is not None
    assert told.startswith("No image is known to be normal, so 30 of these images, drawn at random")
    assert "half of them score below 1." in told
    lines = [trace.name for trace in draw_scores(ImageScores(np.ones(3)), UsualScores(np.ones(30), False)).data[1:]]
    assert lines == ["sample, for comparison", "half of it"]


def test_regions_are_told_against_masks() -> None:
    detector = DetectorReport(ImageScores(np.ones(1)), compared=7, iou=(0.2, 0.4, 0.5), area_ratio=(1.5, 2.0, 13.4))
    told = describe_regions(detector)
    assert told is not None
    assert "mostly larger than what was drawn" in told
    assert "of the 7 images with a mask, the marked area is 1.5 to 13 times" in told
    assert [(figure.name, figure.values) for figure in figures_of(detector)] == [
        ("IoU", (("median", 0.4),)),
        ("Marked / drawn area", (("median", 2.0),)),
    ]
    assert describe_regions(DetectorReport(ImageScores(np.ones(1)))) is None


def test_without_labels_and_masks_only_the_histogram_is_there(tile: ProductReport) -> None:
    full, bare = (Page(render(run_of(product))) for product in (tile, without_labels(tile, "tile")))
    shown = ("Defects with the lowest scores", "Good images with the highest scores")
    titles, bare_titles = ({heading.text for heading in page.all("h4")} for page in (full, bare))
    assert set(shown) <= titles
    assert not set(shown) & bare_titles
    for page in (full, bare):
        assert "score higher than 99\N{NBSP}% of 64 normal images" in page.all("main")[0].text
    assert "AUPRO" in full.all("main")[0].text
    assert "AUPRO" not in bare.all("main")[0].text
    assert "Detector" not in Page(render(run_of(replace(tile, detector=None)))).all("nav")[0].text


def test_a_picture_has_both_outlines() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    webp = thumbnail(png(np.full((64, 64, 3), 90, np.uint8)), png(mask), 224, png(np.roll(mask, 10, axis=0)))
    picture = cv2.imdecode(np.frombuffer(webp, np.uint8), cv2.IMREAD_COLOR).astype(int)
    near = [(np.abs(picture - colour).sum(axis=2) < 120).sum() for colour in (CONTOUR_BGR, DRAWN_BGR)]
    assert min(near) > 50


def test_pictures_of_many_products_stay_small() -> None:
    one = DetectorReport(ImageScores(np.ones(1)), missed=[worst("crack", 0, 0.1)] * 6)
    size = len(encode_picture(one.missed[0]))
    assert count_pictures([one], 6 * size) == 6
    assert count_pictures([one] * 2, 6 * size) == 3
    assert count_pictures([one] * 10, 6 * size) == 0


def test_the_curve_is_drawn_in_percent() -> None:
    (curve,) = draw_pro([0.0, 0.3], [0.0, 0.9]).data
    assert list(curve.x) == [0, 30]
    assert list(curve.y) == [0, 90]
