"""The report as a file: self-contained, safe, complete, readable."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from page import Page
from sample_report import CONFIG, discovered, png, region, run_of, without_labels

from ancd_ray.jobs.report import (
    ClassReport,
    ClusterScores,
    Confusion,
    Counts,
    DetectorReport,
    GalleryItem,
    ImageScores,
    ProductReport,
    TokenMap,
    group_quarantine,
    render,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"


@pytest.fixture(scope="module")
def page(tile: ProductReport) -> Page:
    return Page(render(run_of(tile, without_labels(tile, "Blech – Süd 鋼板"))))


def test_nothing_is_fetched(page: Page) -> None:
    assert not page.all("link", "iframe", "object", "embed", "base")
    assert all(src.startswith("data:image/webp;base64,") for src in page.attributes("src"))
    assert all(href.startswith("#") for href in page.attributes("href"))
    assert not re.search(r"url\(|@import", page.all("style")[0].text)
    assert page.html.count("plotly.js v") == 1


def test_the_policy_names_exactly_the_scripts_of_the_page(page: Page) -> None:
    (policy,) = [meta.attrs["content"] for meta in page.all("meta") if "http-equiv" in meta.attrs]
    digests = [base64.b64encode(hashlib.sha256(s.text.encode()).digest()).decode() for s in page.programs]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert len(digests) == 2
    assert policy.startswith("default-src 'none'")


def test_headings_form_an_outline_and_each_is_followed_by_a_sentence(page: Page) -> None:
    levels = [int(element.tag[1]) for element in page.all("h1", "h2", "h3", "h4", "h5")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    explained = [el for el in page.elements if el.tag not in ("bdi", "span")]
    for element, following in pairwise(explained):
        if element.tag in ("h2", "h3") and element.text != "Contents":
            assert following.tag == "p", element.text
            assert following.text.rstrip().endswith("."), element.text


def test_pictures_and_figures_are_described(page: Page) -> None:
    worst = [image for image in page.all("img") if image.attrs["width"] == "168"]
    assert all("score" in image.attrs["alt"] for image in worst)
    assert all("confidence" in image.attrs["alt"] for image in page.all("img") if image not in worst)
    figures = [element for element in page.all("div") if "plot" in element.attrs.get("class", "")]
    assert figures
    assert all(figure.attrs["aria-label"] for figure in figures)


def test_links_lead_somewhere(page: Page) -> None:
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {href[1:] for href in page.attributes("href")} <= set(ids)


def test_every_product_is_in_the_contents(page: Page) -> None:
    contents = page.all("nav")[0].text
    assert "tile" in contents
    assert "Blech – Süd 鋼板" in contents


def test_figures_counts_and_times(page: Page) -> None:
    text = page.all("main")[0].text
    cards = [element.text.split() for element in page.all("dd") if element.attrs.get("class") == "value"]
    assert ["0.812", "images"] in cards
    assert ["0.781", "regions"] in cards
    for value in ("0.746", "0.701", "0.891", "0.860", "0.912", "0.875", "0.961", "0.874", "0.935"):
        assert value in text
    for count in ("1,234", "1,871", "31"):
        assert count in [element.text for element in page.all("dd")]
    assert [badge.text for badge in page.all("span") if badge.attrs.get("class") == "badge"] == ["cached"] * 4
    assert "3 min 23 s" in text  # the stages of both products that were not cached
    assert "the file is cut short" in text
    assert "and 10 more" in text
    assert page.all("pre")[0].text == CONFIG


def test_without_labels_the_figures_say_what_they_need(tile: ProductReport) -> None:
    labelled = render(run_of(tile))
    assert "needs labels" not in labelled
    bare = Page(render(run_of(without_labels(tile, "tile"))))
    missing = [element.text for element in bare.all("dd") if element.attrs.get("class") == "missing"]
    assert missing == ["needs labels"] * 5
    assert "Classes against labels" not in bare.html
    assert "Colour by" not in bare.html


def test_labels_without_a_normal_class_are_not_asked_for_again(tile: ProductReport) -> None:
    html = render(run_of(replace(tile, normal_precision=None, normal_recall=None)))
    assert "needs labels" not in html
    assert html.count("no normal class") == 2


def test_classes_come_by_size_and_empty_ones_are_named(tile: ProductReport) -> None:
    shuffled = replace(tile, classes=list(reversed(tile.classes)), detector=None)
    page = Page(render(run_of(shuffled)))
    names = ["normal", "class 1", "class 2", "class 3", "class 4"]
    assert [h.text for h in page.all("h4")] == [f"{name} tile-c{i:04d}" for i, name in enumerate(names)]
    assert "1 class is empty: class 5." in page.all("main")[0].text


def test_a_gallery_shows_eight_and_four(tile: ProductReport) -> None:
    item = region("hole", 0, 0.5)
    full = ClassReport(1, "class 1", "tile-c0001", 99, 99, most_certain=[item] * 12, least_certain=[item] * 6)
    page = Page(render(run_of(replace(tile, classes=[full], detector=None))))
    assert len(page.all("img")) == 12


def test_hostile_texts_are_shown_and_never_run(tile: ProductReport) -> None:
    detected = tile.detector
    assert detected is not None
    product = replace(
        tile,
        name=HOSTILE,
        classes=[ClassReport(0, HOSTILE, HOSTILE, 5, 5, HOSTILE, 1.0, [region("hole", 0, 0.9, f"/a/{HOSTILE}")])],
        confusion=Confusion(np.array([[5]]), [HOSTILE], [HOSTILE]),
        losses={HOSTILE: [1.0, 0.5]},
        token_map=TokenMap(np.zeros((1, 2)), np.array([0]), [HOSTILE], [HOSTILE]),
        detector=replace(detected, missed=[replace(detected.missed[0], uri=HOSTILE, label=HOSTILE)], alarms=[]),
    )
    run = replace(
        run_of(product, product),
        job=HOSTILE,
        config=HOSTILE,
        libraries={HOSTILE: HOSTILE},
        quarantine=group_quarantine([(HOSTILE, HOSTILE, HOSTILE)]),
    )
    page = Page(render(run))
    assert len(page.programs) == 2
    assert len(page.all("img")) == 4  # a region and an image of each of the two products
    assert not [key for element in page.elements for key in element.attrs if key.startswith("on")]
    assert page.all("h1")[0].text == HOSTILE
    assert page.all("pre")[0].text == HOSTILE
    assert HOSTILE in page.all("h4")[0].text
    data = [json.loads(s.text) for s in page.all("script") if s not in page.programs]
    assert all(
        "<script" not in str(trace.get("name", "")) + str(trace.get("text", "")) for f in data for trace in f["data"]
    )


def test_file_names_of_any_script(tile: ProductReport) -> None:
    cls = replace(tile.classes[1], most_certain=[region("hole", 0, 0.9, "s3://archiv/Prüfung 検査/شق.png")])
    page = Page(render(run_of(replace(tile, classes=[cls]))).encode().decode())
    assert any(image.attrs["alt"].startswith("Region of شق.png") for image in page.all("img"))


def test_a_product_with_nothing_in_it() -> None:
    empty = ProductReport("void", ClusterScores(0), ClusterScores(0), [])
    run = replace(run_of(empty), counts=Counts(0, 0, 0, 0), stages=[], quarantine=[])
    text = Page(render(run)).all("main")[0].text
    assert "0 images with 0 regions fell into 0 classes." in text
    assert "Nothing was set aside." in text
    assert Page(render(replace(run, products=[]))).all("h2")


def test_the_same_run_gives_the_same_bytes(tile: ProductReport) -> None:
    assert render(run_of(tile)) == render(run_of(tile))


def test_a_region_that_cannot_be_decoded_is_an_error(tile: ProductReport) -> None:
    broken = replace(tile.classes[0], most_certain=[GalleryItem(b"no picture", b"", 0.5, "a.png", None, (0, 0, 1, 1))])
    with pytest.raises(ValueError, match="cannot be decoded"):
        render(run_of(replace(tile, classes=[broken])))


def test_two_hundred_classes_of_a_large_archive_stay_small(tile: ProductReport) -> None:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), (0, 0), 1)  # worse than any surface
    item = replace(region("hole", 0, 0.9), image=png(texture), mask=png(np.zeros((256, 256), np.uint8)))
    classes = [
        replace(
            discovered(0, "good", 0), index=i, name=f"class {i}", regions=500, images=i + 1, most_certain=[item] * 8
        )
        for i in range(200)
    ]
    rng = np.random.default_rng(1)
    large = replace(
        tile,
        classes=classes,
        detector=DetectorReport(ImageScores(rng.random(100_000))),
        confusion=Confusion(np.eye(200, dtype=int), [c.name for c in classes], [c.name for c in classes]),
        token_map=TokenMap(rng.random((100_000, 2)), np.arange(100_000) % 200, ["a" * 60] * 100_000),
    )
    html = render(replace(run_of(large), counts=Counts(80_000, 100_000, 0, 0)))
    assert len(html.encode()) < 15e6
    page = Page(html)
    assert len(page.all("h4")) == 200
    assert len(page.all("img")) >= 200
    assert "176 smaller classes" in html
    assert "2,000 of 100,000 regions are drawn" in page.all("main")[0].text
