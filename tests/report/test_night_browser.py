"""The pages of nights in a real browser: they fit the window, and the list shows the nights of one product."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser
from sample_night import busy_night, busy_product, night_of, quiet_product, weeks

from ancd_ray.jobs.nights.render import OPEN_PRODUCTS, render, render_index

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

WIDE = """[...document.querySelectorAll("main *")]
  .filter((element) => element.getBoundingClientRect().right > innerWidth).map((element) => element.outerHTML)"""
SHOWN = """[...document.querySelectorAll("#nights tbody")].filter((night) => night.getClientRects().length)
  .map((night) => night.innerText.trim().split(/\\s+/).slice(0, 5).join(" "))"""
CHOOSE = """(name) => {
  const choice = document.querySelector(".filter select");
  choice.value = [...choice.options].find((option) => option.text === name).value;
  choice.dispatchEvent(new Event("change"));
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busy night, a night of many products with long names, and the list of nights."""
    folder = tmp_path_factory.mktemp("nights")
    quiet = [quiet_product(f"鋼板_part_without_any_place_to_break_its_name_{i}") for i in range(OPEN_PRODUCTS)]
    many = night_of(busy_product("W" * 80), *quiet, left_out=[("V" * 80, "M" * 200)])
    (folder / "busy.html").write_text(render(busy_night()), encoding="utf-8")
    (folder / "many.html").write_text(render(many), encoding="utf-8")
    (folder / "nights.html").write_text(render_index(weeks()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["busy", "many", "nights"])
def test_a_page_fits_the_window_without_a_complaint(
    tab: Browser, pages: Path, name: str, width: int, scheme: str
) -> None:
    tab.resize(width, 900)
    tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.open(pages / f"{name}.html")
    tab.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate(WIDE) == []
    assert tab.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 30)"
    )
    assert tab.complaints() == []


def test_the_list_shows_one_product(tab: Browser, pages: Path) -> None:
    tab.resize(1280, 900)
    tab.open(pages / "nights.html")
    everything = tab.evaluate(SHOWN)
    assert len(everything) == 22
    assert everything[0] == "2026-03-14 1,097 37 3 4"
    points = tab.evaluate("document.querySelector('polyline').getAttribute('points')")
    tab.evaluate(f"({CHOOSE})('Blech – Süd')")
    assert tab.evaluate(SHOWN) == ["2026-03-14 123 0 0 0"]
    assert tab.evaluate("document.querySelector('.most').textContent") == "123"
    assert tab.evaluate("document.querySelector('polyline').getAttribute('points')") != points
    tab.evaluate(f"({CHOOSE})('bracket')")  # which has an alert only
    assert tab.evaluate(SHOWN) == ["2026-03-14 0 0 0 1"]
    assert "12 images were not sorted" in tab.evaluate("document.querySelector('#nights').innerText")
    assert "21 unknown regions" not in tab.evaluate("document.querySelector('#nights').innerText")
    tab.evaluate(f"({CHOOSE})('all')")
    assert tab.evaluate(SHOWN) == everything
    assert tab.complaints() == []
