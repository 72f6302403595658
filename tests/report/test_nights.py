"""The list of nights: the newest first, with numbers, alerts and links, as a whole and for each product."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from page import Page
from sample_night import STARTED, busy_night, described, night_of, quiet_product, weeks

from ancd_ray.jobs.nights.index import ALERTS
from ancd_ray.jobs.nights.model import Alert
from ancd_ray.jobs.nights.render import NIGHTS, render_index

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_index(weeks()))


def rows(page: Page, table: int) -> list[list[str]]:
    """The cells of a table, without those of alerts."""
    html = page.html.split("<tbody>", 1)[1].split("</table>")[table]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", html, re.S)]
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in cells]


def test_the_newest_night_comes_first(page: Page) -> None:
    found = rows(page, 0)
    assert found[0] == ["2026-03-14", "1,097", "37", "3", "4"]
    dates = [row[0] for row in found]
    assert dates == sorted(dates, reverse=True)
    assert len(dates) == 22
    assert next(a.attrs["href"] for a in page.all("a") if "2026-03-13" in a.text) == "2026-03-13T22-05-00/night.html"


def test_a_night_whose_run_was_cleaned_away_has_no_link() -> None:
    page = Page(render_index([{**night, "href": None} for night in weeks()]))
    assert not [a for a in page.all("a") if "night.html" in (a.attrs["href"] or "")]
    assert rows(page, 0)[0][0] == "2026-03-14"


def test_alerts_are_told(page: Page) -> None:
    (texts,) = [row.text for row in page.all("tr") if row.attrs.get("class") == "texts"]
    assert "New kind of defect · tile: 21 unknown regions look alike" in texts
    assert "1 more" in page.all("details")[0].text


def test_products_have_their_own_table(page: Page) -> None:
    found = rows(page, 1)[1:]
    assert found[0] == ["Blech – Süd", "1", "123", "0", "0", "2026-03-14"]
    assert found[1] == ["bracket", "0", "0", "0", "0", "none"]
    assert found[2][:2] == ["tile", "19"]
    assert [option.text for option in page.all("option")] == ["all", "Blech – Süd", "bracket", "tile"]


def test_the_line_has_a_point_for_each_night(page: Page) -> None:
    (line,) = page.all("polyline")
    assert len(line.attrs["points"].split()) == 22
    assert "at most 1,097 a night" in page.all("figcaption")[0].text


def test_the_policy_allows_the_script_of_the_page_only(page: Page) -> None:
    (script,) = page.programs
    (policy,) = [meta.attrs["content"] for meta in page.all("meta") if "http-equiv" in meta.attrs]
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert re.findall(r"'sha256-([^']+)'", policy) == [digest]


def test_what_the_script_is_told(page: Page) -> None:
    (data,) = [json.loads(script.text) for script in page.all("script") if script not in page.programs]
    assert data[0] == {"0": [123, 0, 0, 0], "1": [0, 0, 0, 1], "2": [974, 37, 3, 3]}
    assert data[7] == {}


def test_hostile_texts_are_shown_and_never_run() -> None:
    night = night_of(quiet_product(HOSTILE), alerts=[Alert("drift", HOSTILE, HOSTILE)], run=HOSTILE)
    page = Page(render_index(described([night])))
    assert len(page.programs) == 1
    assert not page.all("img")
    assert not [key for element in page.elements for key in element.attrs if key.startswith("on")]
    assert [bdi.text for bdi in page.all("bdi")] == [HOSTILE] * 3
    assert page.all("option")[1].text == HOSTILE


def test_no_night_and_one_night() -> None:
    assert "There are no nights yet." in Page(render_index([])).all("main")[0].text
    page = Page(render_index(described([busy_night()])))
    assert len(page.all("circle")) == 1  # a line of one point cannot be seen


def test_many_nights_and_alerts_are_cut() -> None:
    alerts = [Alert("drift", "tile", f"alert {i}") for i in range(ALERTS + 5)]
    nights = [night_of(started_at=STARTED - timedelta(i)) for i in range(NIGHTS + 10)]
    nights[0] = replace(nights[0], alerts=alerts)
    page = Page(render_index(described(nights)))
    assert len(rows(page, 0)) == NIGHTS
    text = page.all("main")[0].text
    assert f"The newest {NIGHTS} of {NIGHTS + 10} nights." in text
    assert "and 5 more in its report." in text
    assert f"alert {ALERTS - 1}" in text
