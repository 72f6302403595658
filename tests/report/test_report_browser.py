"""The page in a real browser: its scripts run under its own policy, and the figures are drawn and fit the window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, DRAW_ALL, Browser, browser
from sample_report import run_of

from ancd_ray.jobs.report import ProductReport, render

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

MEASURE = """({
  window: innerWidth,
  page: document.documentElement.scrollWidth,
  places: [...document.querySelectorAll(".plot")].map((plot) => plot.getBoundingClientRect().width),
  drawings: [...document.querySelectorAll(".plot")].map((plot) => plot.querySelector(".main-svg").width.baseVal.value),
  right: Math.max(...[...document.querySelectorAll(".plot")].map((plot) => plot.getBoundingClientRect().right)),
})"""
SETTLED = """(async () => {
  const width = (plot) => plot.querySelector(".main-svg").width.baseVal.value;
  const fits = (plot) => Math.abs(width(plot) - plot.getBoundingClientRect().width) < 1;
  for (let i = 0; i < 100 && ![...document.querySelectorAll(".plot")].every(fits); i++)
    await new Promise((done) => setTimeout(done, 50));
})()"""


@pytest.fixture(scope="module")
def report(tile: ProductReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a map, the histogram and the curve of a detector, and six loss curves."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(run_of(tile)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def _drawn(tab: Browser, report: Path, width: int) -> None:
    tab.resize(width, 900)
    tab.open(report)
    tab.evaluate(DRAW_ALL)


def _assert_fits(measured: dict[str, Any], width: int) -> None:
    assert measured["window"] == width
    assert measured["page"] <= width
    assert measured["right"] <= width
    assert len(measured["places"]) == 9


def test_figures_are_drawn_without_a_complaint(tab: Browser, report: Path) -> None:
    _drawn(tab, report, 1300)
    assert (
        tab.evaluate("document.querySelectorAll('.js-plotly-plot').length") == 9
    )  # map, two of the detector, six losses
    assert tab.evaluate("document.querySelectorAll('script[type=\"application/json\"]').length") == 0
    assert tab.complaints() == []


@pytest.mark.parametrize("width", [1280, 390])
def test_figures_fit_the_window(tab: Browser, report: Path, width: int) -> None:
    _drawn(tab, report, width)
    _assert_fits(tab.evaluate(MEASURE), width)


@pytest.mark.parametrize(("before", "after"), [(899, 1280), (1280, 390)])
def test_figures_fit_a_resized_window(tab: Browser, report: Path, before: int, after: int) -> None:
    """At 899 pixels the curves are wider than at 1280, where there are three columns beside the contents."""
    _drawn(tab, report, before)
    tab.resize(after, 900)
    _assert_fits(tab.evaluate(MEASURE), after)  # before Plotly has drawn again
    tab.evaluate(SETTLED)
    measured = tab.evaluate(MEASURE)
    _assert_fits(measured, after)
    assert measured["drawings"] == pytest.approx(measured["places"], abs=1)


def test_figures_are_redrawn_when_only_their_place_changes(tab: Browser, report: Path) -> None:
    _drawn(tab, report, 1280)
    tab.evaluate("document.querySelector('main').style.width = '600px'")
    tab.evaluate(SETTLED)
    measured = tab.evaluate(MEASURE)
    assert max(measured["places"]) <= 600
    assert measured["drawings"] == pytest.approx(measured["places"], abs=1)
