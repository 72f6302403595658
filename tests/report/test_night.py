"""The report of a night: what comes first, what is said in words, and how large it may become."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from itertools import pairwise

import cv2
import numpy as np
import pytest
from page import Page
from sample_night import busy_night, busy_product, chart, night_of, pictures, quiet_product
from sample_report import png, region

from ancd_ray.config.sections import AlertsConfig
from ancd_ray.jobs.nights.charts import CHART, draw_chart
from ancd_ray.jobs.nights.extents import LIMIT
from ancd_ray.jobs.nights.model import Alert, CandidateClass, ControlChart, Drift, NightClass
from ancd_ray.jobs.nights.render import OPEN_PRODUCTS, render
from ancd_ray.jobs.nights.statistics import make_chart, measure_stability
from ancd_ray.jobs.nights.wording import judge_count, speed, usual_range

HOSTILE = "</style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"
DAYS = [date(2026, 3, day) for day in range(1, 10)]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(busy_night()))


def main_text(page: Page) -> str:
    return page.all("main")[0].text


def test_the_headline_says_what_when_and_how_fast(page: Page) -> None:
    assert page.all("h1")[0].text == "plant"
    header = page.all("header")[0].text
    assert "2026-03-14 22:05 UTC: 1,097 new images, sorted in 12 min 31 s (1.5 images a second)" in header


def test_alerts_come_first_then_what_is_new(page: Page) -> None:
    assert [h.text for h in page.all("h2")] == ["Alerts", "What is new", "Products", "Products that were left out"]
    text = main_text(page)
    order = ["Alerts", "21 unknown regions look alike", "New class tile-c0007", "Unknown regions", "To look at"]
    order += ["more than usual", "Least certain pictures", "Changes", "Unusable files", "bracket", "mode: discover"]
    places = [text.index(part) for part in order[:1]]
    for part in order[1:]:
        places.append(text.index(part, places[-1]))
    assert len(places) == len(order)


def test_headings_form_an_outline_and_tables_have_headers(page: Page) -> None:
    levels = [int(element.tag[1]) for element in page.all("h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    assert all(header.attrs.get("scope") for header in page.all("th"))
    assert all(image.attrs["alt"] for image in page.all("img"))
    assert all(svg.attrs["aria-label"] for svg in page.all("svg"))


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    assert not page.all("script", "link", "iframe", "object", "embed", "base")
    assert all(src.startswith("data:image/webp;base64,") for src in page.attributes("src"))
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {href[1:] for href in page.attributes("href")} <= set(ids)
    (policy,) = [meta.attrs["content"] for meta in page.all("meta") if "http-equiv" in meta.attrs]
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_a_candidate_has_pictures_and_its_command(page: Page) -> None:
    new, accepted, unknown = page.all("article")
    assert "21 regions in 18 images" in new.text
    assert "2.3 times as far" in new.text
    assert [code.text for code in page.all("code")] == ["ancd-ray classes accept OUTPUT tile-c0007"]
    assert "It is accepted" in accepted.text
    assert "Unknown regions" in unknown.text
    alts = page.attributes("alt")
    assert sum("in the new class tile-c0007" in alt for alt in alts) == 8
    assert sum("that resembles no class" in alt for alt in alts) == 6
    assert sum("confidence 0.280" in alt for alt in alts) == 1


def test_an_unusual_number_is_marked_by_a_shape_and_by_words(page: Page) -> None:
    (row,) = [row for row in page.all("tr") if row.text.startswith("hole")]
    assert "41more than usual" in row.text
    assert [path.attrs["class"] for path in page.all("path")].count("out") == 1
    label = next(svg.attrs["aria-label"] for svg in page.all("svg") if svg.attrs["aria-label"].startswith("hole"))
    assert re.fullmatch(r"hole: 41 images on the last of 31 days, usually \d+ to \d+", label)


def test_changes_are_said_in_words() -> None:
    page = Page(render(night_of(busy_product())))
    rows = [" ".join(row.text.split()) for row in page.all("tr") if "limit" not in row.text.lower()]
    (score,) = [row for row in rows if row.startswith("Anomaly scores")]
    assert score.endswith("The images look different than before: check camera, light and material. 0.31–0.25")
    (confidence,) = [row for row in rows if row.startswith("Confidence")]
    assert confidence.endswith("As usual. 0.04–0.25")
    (unknown,) = [row for row in rows if row.startswith("Unknown images")]
    assert unknown.endswith("look at the unknown pictures. 3.8 %0.6 %2.0 %")


def test_hostile_texts_are_shown_and_never_run() -> None:
    product = replace(
        busy_product(HOSTILE),
        classes=[NightClass(HOSTILE, HOSTILE, 4, chart(3, 4))],
        candidates=[
            CandidateClass(f"{HOSTILE}-c0001", "candidate", 5, 5, 2.0, [region("hole", 0, 0.9, f"/a/{HOSTILE}")])
        ],
        drift=[Drift(HOSTILE, 2, None, 1)],
        quarantine=[(HOSTILE, HOSTILE)],
    )
    alerts = [Alert(HOSTILE, HOSTILE, HOSTILE)]
    night = night_of(product, product, job=HOSTILE, run=HOSTILE, left_out=[(HOSTILE, HOSTILE)], alerts=alerts)
    page = Page(render(night))
    assert not page.all("script")
    assert len(page.all("style")) == 1
    assert not [key for element in page.elements for key in element.attrs if key.startswith("on")]
    assert all(src.startswith("data:image/webp") for src in page.attributes("src"))
    assert page.all("h1")[0].text == HOSTILE
    texts = [bdi.text for bdi in page.all("bdi")]
    assert texts.count(HOSTILE) >= 12
    command = page.all("code")[0].text
    assert command.startswith("ancd-ray classes accept OUTPUT '")  # quoted for the shell


def test_a_night_without_new_images_says_so() -> None:
    page = Page(render(night_of(replace(quiet_product("tile"), new=0), seconds=4.0)))
    assert main_text(page).strip() == "No new images came in this night, so there is nothing to sort."
    assert "0 new images." in page.all("header")[0].text
    assert "nothing to sort" in render(night_of())
    told = Page(render(night_of(left_out=[("bracket", "no model")], alerts=[Alert("left_out", "bracket", "no model")])))
    assert [h.text for h in told.all("h2")] == ["Alerts", "Products that were left out"]


def test_a_quiet_night_has_one_line_instead_of_alerts() -> None:
    page = Page(render(night_of(quiet_product("tile"))))
    assert [h.text for h in page.all("h2")] == ["What is new", "Products"]
    assert "There are no alerts in this night." in main_text(page)
    assert "Nothing: all new images resemble known classes." in main_text(page)
    assert not page.all("details")
    assert "To look at" not in page.html  # a table of one product


def test_of_many_products_those_without_news_are_folded_up() -> None:
    quiet = [quiet_product(f"part {i}") for i in range(OPEN_PRODUCTS)]
    page = Page(render(night_of(*quiet, busy_product())))
    links = [element.text for element in page.all("a")][1:]
    assert links[:2] == ["tile", "tile"]  # in what is new, and at the top of the table
    assert len(page.all("details")) == OPEN_PRODUCTS
    assert "tile" not in "".join(details.text for details in page.all("details"))
    assert not Page(render(night_of(*quiet))).all("details")


def test_long_lists_and_texts_are_cut() -> None:
    files = [(f"/a/{i}.png" + "x" * 10_000, "broken") for i in range(5_000)]
    product = replace(busy_product(), quarantine=files, quarantined=5_000)
    html = render(night_of(product, alerts=[Alert("drift", "tile", "y" * 100_000)] * 300))
    assert len(html.encode()) < 1_000_000
    text = main_text(Page(html))
    assert "and 4,900 more files." in text
    assert "and 200 more alerts." in text


@pytest.fixture(scope="module")
def texture() -> bytes:
    """A picture that takes more bytes than any surface."""
    rng = np.random.default_rng(0)
    return png(cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), (0, 0), 1))


@pytest.mark.slow
def test_two_hundred_products_with_fifty_pictures_stay_small(texture: bytes) -> None:
    item = replace(pictures("hole", 1)[0], image=texture, mask=png(np.zeros((256, 256), np.uint8)))
    classes = [NightClass(f"c{i}", f"class {i}", 9, chart(9, 9, seed=i)) for i in range(12)]
    busy = busy_product()
    candidates = [CandidateClass("c99", "candidate", 30, 30, 2.0, [item] * 10)]
    products = [
        replace(
            busy,
            product=f"part {i}",
            classes=classes,
            candidates=candidates,
            unknown_pictures=[item] * 20,
            uncertain_pictures=[item] * 20,
        )
        for i in range(200)
    ]
    html = render(night_of(*products))
    assert len(html.encode()) <= LIMIT
    page = Page(html)
    assert len(page.all("img")) >= 200
    assert len(page.all("article")) == 400
    assert "more pictures." in html


def test_whatever_comes_in_the_page_has_a_limit() -> None:
    long = "<&\N{SNOWMAN}" * 1_000
    classes = [NightClass(long, long, 9, chart(9, 90))] * 150
    product = replace(busy_product(long), classes=classes, quarantine=[(long, long)] * 150, unknown=0, candidates=[])
    night = night_of(*[product] * 400, left_out=[(long, long)] * 3_000, alerts=[Alert(long, long, long)] * 1_000)
    html = render(night)
    assert len(html.encode()) <= LIMIT
    assert Page(html).all("h2")[0].text == "Alerts"


def test_charts_keep_their_values_inside_of_the_box() -> None:
    for drawing in (draw_chart(chart(900, 1_400)), draw_chart(chart(2, 0)), draw_chart(chart(0, 0))):
        assert len(drawing.points) == 31
        assert all(0 <= x <= CHART[0] and 0 <= y <= CHART[1] for x, y in drawing.points)
        assert drawing.band is not None
        assert drawing.band[1] >= 0
    high, low = draw_chart(ControlChart(chart(1, 1, 1).days, [0, 8])).points
    assert low[1] < high[1] - 20  # heights are counted from the top
    assert draw_chart(ControlChart([], [])).points == []
    assert draw_chart(chart(3, 3, days=3)).band is None


def test_usual_ranges_in_words() -> None:
    assert usual_range(chart(3, 3, days=3)) == "too few earlier days to say what is usual"
    assert usual_range(ControlChart([], [5], 4.0, -2.0, 10.0)) == "usually 0 to 10"
    assert usual_range(ControlChart([], [0], 0.0, 0.0, 0.0)) == "usually 0"
    assert judge_count(ControlChart([], [11], 4.0, -2.0, 10.0)) == "more than usual"
    assert judge_count(ControlChart([], [1], 16.0, 4.0, 28.0)) == "fewer than usual"
    assert judge_count(ControlChart([], [5], 4.0, -2.0, 10.0)) == ""


def test_the_first_images_of_a_class_are_told_as_such() -> None:
    first = make_chart({DAYS[-1]: 2}, DAYS)
    assert usual_range(first) == "a class that was not seen on the 8 days before"
    assert judge_count(first) == "first seen"
    assert judge_count(make_chart({}, DAYS)) == ""
    assert judge_count(make_chart({DAYS[0]: 1, DAYS[-1]: 9}, DAYS)) == "more than usual"


@pytest.mark.parametrize(("now", "before"), [(100, 400), (84, 2520), (160, 160)])
def test_chance_alone_is_no_drift(now: int, before: int) -> None:
    """In at most one of twenty nights that are like those before."""
    rng = np.random.default_rng(0)
    found = [measure_stability(rng.random(before), rng.random(now)) for _ in range(600)]
    assert np.mean([value is None or value > AlertsConfig().drift for value in found]) <= 0.05
    moved = [measure_stability(rng.random(before), rng.random(now) ** 3) for _ in range(20)]
    assert min(value for value in moved if value is not None) > AlertsConfig().drift, "a change is"
    assert measure_stability(rng.random(before), rng.random(40)) is None
    assert measure_stability(np.empty(0), rng.random(now)) is None
    assert [speed(n, 10) for n in (3, 25, 12_345)] == ["0.3", "2.5", "1,234"]
