"""The report of a sweep: the answer at the top, its figures, and what does not exist."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRAW_ALL, browser
from page import Page

from ancd_ray.jobs.report import LostTrial, Point, SweepReport, SweptProduct, render_sweep
from ancd_ray.jobs.report.sweep_figures import axes, heat_map, mean_product, parallel, sensitivity

LAMBDAS, TAUS = (0.1, 0.3, 0.5), (10.0, 50.0, 100.0, 200.0)


def _product(name: str, seed: int) -> SweptProduct:
    rng = np.random.default_rng(seed)
    points = [
        Point(
            {"train.lambda": lam, "merge.tau_alpha": tau},
            {key: float(rng.random()) for key in ("nmi", "ari", "f1", "unsupervised")},
        )
        for lam in LAMBDAS
        for tau in TAUS
    ]
    best = max(points, key=lambda point: point.figures["nmi"] or 0)
    default = next(point for point in points if list(point.settings.values()) == [0.3, 100.0])
    return SweptProduct(name, points, best, default, {"done": 3, "stopped": 0, "failed": 0})


@pytest.fixture
def sweep() -> SweepReport:
    nothing = SweptProduct("none", [], None, None, {"done": 0, "stopped": 0, "failed": 3})
    return SweepReport(
        name="<b>sweep</b>",
        created_at=datetime(2026, 1, 2, tzinfo=timezone.utc),
        version="1",
        libraries={"ray": "2.60"},
        config="name: sweep",
        metric="nmi",
        trained=["train.lambda"],
        merged=["merge.tau_alpha"],
        defaults={"train.lambda": 0.3, "merge.tau_alpha": 100.0},
        products=[_product("a<script>", 1), _product("b", 2), nothing],
        lost=[LostTrial("none", {"train.lambda": 0.1}, "failed", "product none has 5 regions", 0.0)],
        trials=9,
        left=0,
        seconds=12.0,
        trial_seconds=90.0,
    )


def test_the_answer_is_the_first_table(sweep: SweepReport) -> None:
    page = Page(render_sweep(sweep))
    table = page.all("table")[0]
    assert table.attrs["class"] == "answer"
    for product in sweep.products[:2]:
        assert product.best is not None
        (row,) = [row for row in page.all("tr") if product.name in row.text and "gained" not in row.text and row.text][
            :1
        ]
        assert f"{product.best.settings['train.lambda']:g}" in row.text
        assert f"{product.best.settings['merge.tau_alpha']:g}" in row.text
        assert f"{product.best.figures['nmi']:.3f}" in row.text
    assert "no trial has a result" in table.text
    assert "5 regions" in page.html


def test_nothing_of_a_name_is_markup(sweep: SweepReport) -> None:
    page = Page(render_sweep(sweep))
    assert len(page.programs) == 2
    assert "<b>sweep" not in page.html
    assert not re.search(r"https?://", re.sub(r"<script>.*?</script>", "", page.html, flags=re.S))


def test_figures(sweep: SweepReport) -> None:
    assert axes(sweep) == ("train.lambda", "merge.tau_alpha")
    heat = heat_map(sweep, sweep.products[0]).data[0]
    assert np.shape(heat.z) == (3, 4)
    best = sweep.products[0].best
    assert best is not None
    assert np.max(heat.z) == pytest.approx(best.figures["nmi"], abs=1e-4)
    mean = mean_product(sweep)
    assert mean is not None
    assert mean.points[0].figures["nmi"] == pytest.approx(
        np.mean([product.points[0].figures["nmi"] for product in sweep.products[:2]])
    )
    curve = sensitivity(sweep, "merge.tau_alpha").data[0]
    assert list(curve.x) == list(TAUS)
    lines = [x for trace in parallel(sweep).data for x in trace.x if x == 0]
    assert len(lines) == 24


def test_one_key_and_one_product(sweep: SweepReport) -> None:
    product = sweep.products[0]
    points = [Point({"train.lambda": p.settings["train.lambda"]}, p.figures) for p in product.points[::4]]
    one = replace(product, points=points, best=points[0], default=points[1])
    html = render_sweep(replace(sweep, merged=[], defaults={"train.lambda": 0.3}, products=[one], lost=[]))
    assert "Heat map" not in html
    assert "Curve of the metric over train.lambda" in html


def test_without_labels(sweep: SweepReport) -> None:
    html = render_sweep(replace(sweep, metric="unsupervised"))
    assert "needs no labels" in html


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_figures_are_drawn_in_a_browser(sweep: SweepReport, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render_sweep(sweep), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.resize(1300, 900)
        tab.open(tmp_path / "report.html")
        tab.evaluate(DRAW_ALL)
        assert tab.evaluate("document.querySelectorAll('.js-plotly-plot').length") == 6  # three maps, two curves, all
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.complaints() == []
