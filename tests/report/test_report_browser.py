"""The page in a real browser: its scripts run under its own policy, and the figures are drawn."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sample_report import run_of

from ancd_ray.jobs.report import ProductReport, render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_figures_are_drawn_without_a_complaint(tile: ProductReport, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render(run_of(tile)), encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--enable-logging=stderr", "--window-size=1300,9000"]
    command = [
        str(CHROMIUM),
        *options,
        f"--user-data-dir={tmp_path}/profile",
        "--virtual-time-budget=10000",
        "--dump-dom",
    ]
    page = subprocess.run(
        [*command, (tmp_path / "report.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in page.stderr, [line for line in page.stderr.splitlines() if "CONSOLE" in line]
    assert page.stdout.count('type="application/json"') == 0  # each figure's data has become a drawing
    assert len(re.findall(r'class="plot \w+ js-plotly-plot"', page.stdout)) == 8  # map, histogram and six losses
