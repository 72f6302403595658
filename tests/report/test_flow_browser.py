"""The page of `models compare --html` in a real browser: long and hostile names fit and are shown as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, DRAW_ALL, Browser, browser

from ancd_ray.jobs.report.render_flow import render_flow
from ancd_ray.jobs.tracking.flow import ClassFlow

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HOSTILE = "<img src=x onerror=alert(1)><b>stain</b>"
NAMES = {"c0": "scratch", "c1": HOSTILE, "c2": "W" * 80, "c3": "a name that a person wrote, with every detail"}
MODELS = ("models:/tile@champion", "/archive/plant4/" + "runs/" * 30 + "tiles-1a2b3c4d5e6f")
COUNTS = [("c0", "c0", 812), ("c1", "c1", 240), ("c2", "c2", 95), ("c3", "c3", 60), ("c0", "c3", 1)]
# Labels of the left side that reach into one of the right side.
CLASHES = """(() => {
  const labels = [...document.querySelectorAll(".node-label")].map((label) => label.getBoundingClientRect());
  const middle = innerWidth / 2;
  const left = labels.filter((label) => label.left < middle / 2);
  const right = labels.filter((label) => label.right > 1.5 * middle);
  return left.filter((one) => right.some((other) =>
    one.right > other.left && one.bottom > other.top && one.top < other.bottom)).length;
})()"""
BROKEN = """[...document.querySelectorAll("main *")]
  .filter((element) => element.getBoundingClientRect().right > innerWidth).map((element) => element.outerHTML)"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 390])
def test_the_flow_of_classes_fits_the_window(tab: Browser, tmp_path: Path, width: int) -> None:
    page = tmp_path / "flow.html"
    page.write_text(render_flow(ClassFlow(HOSTILE, MODELS, COUNTS, (NAMES, NAMES), (3, 1))), encoding="utf-8")
    tab.resize(width, 900)
    tab.open(page)
    tab.evaluate(DRAW_ALL)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate(BROKEN) == []
    labels = tab.evaluate("[...document.querySelectorAll('.node-label')].map((label) => label.textContent)")
    assert sorted(labels) == sorted(["scratch", "<img src=x oner…", "W" * 15 + "…", "a name that a p…"] * 2)
    assert tab.evaluate(CLASHES) == (width == 390), "only eighty Ws are too wide for a phone"
    cells = tab.evaluate("[...document.querySelectorAll('tbody tr')].map((row) => row.innerText.trim())")
    assert cells[1].split("\t") == [HOSTILE, HOSTILE, "240"]
    assert tab.evaluate("document.querySelectorAll('h1 b, table b, main img').length") == 0
    assert tab.complaints() == []


def test_two_models_without_a_common_region_say_so(tab: Browser, tmp_path: Path) -> None:
    page = tmp_path / "flow.html"
    page.write_text(render_flow(ClassFlow("tile", MODELS, [], ({}, {}), (1, 1200))), encoding="utf-8")
    tab.open(page)
    text = tab.evaluate("document.querySelector('main').innerText")
    assert "no region in common" in text
    assert "1 region is only in the first, 1,200 regions only in the second model." in text
    assert tab.evaluate("document.querySelectorAll('.plot, table').length") == 0
    assert tab.complaints() == []
